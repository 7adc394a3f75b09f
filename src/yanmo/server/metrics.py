"""Figures of a server in Prometheus' form: what is asked, what is written, and what waits.

In: the engines of the models served. Out: the text of /metrics. Nothing of a prompt is in it.
"""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from yanmo.server.engine_thread import EngineThread

FIRST_TEXT_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class ServerMetrics:
    """A registry of its own, so that several servers may live in one process."""

    def __init__(self, engines: Mapping[str, EngineThread]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "yanmo_requests", "Answers, by their status.", ["status"], registry=self.registry
        )
        self.first_text = Histogram(
            "yanmo_first_text_seconds", "From a request to its first token.", buckets=FIRST_TEXT_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.registry.register(EngineCollector(engines))

    def count(self, status: int) -> None:
        """One answer more."""
        self.requests.labels(str(status)).inc()

    def page(self) -> bytes:
        """All figures, as text."""
        return generate_latest(self.registry)


class EngineCollector(Collector):
    """What the engines count themselves, read when it is asked for."""

    def __init__(self, engines: Mapping[str, EngineThread]) -> None:
        self.engines = engines

    def collect(self) -> Iterable[Metric]:
        """The figures of every model."""
        written = CounterMetricFamily("yanmo_tokens_written", "Tokens written.", labels=["model"])
        scored = CounterMetricFamily("yanmo_tokens_scored", "Tokens of given texts scored.", labels=["model"])
        running = GaugeMetricFamily("yanmo_running", "Texts being written or scored.", labels=["model"])
        waiting = GaugeMetricFamily("yanmo_waiting", "Texts that wait.", labels=["model"])
        for name, engine in self.engines.items():
            written.add_metric([name], engine.tokens_written)
            scored.add_metric([name], engine.tokens_scored)
            running.add_metric([name], engine.running)
            waiting.add_metric([name], engine.waiting)
        return written, scored, running, waiting
