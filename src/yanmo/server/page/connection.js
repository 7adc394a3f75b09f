/** What happens when the server refuses, or does not answer: a bar says so, writing goes on, and it is asked again. */

import { Offline } from "./api.js";

const AGAIN_MS = 3000;

export class Connection {
  /**
   * @param {import("./api.js").Server} server
   * @param {import("./notices.js").Notices} notices
   * @param {() => void} returned what to do when the server answers again
   */
  constructor(server, notices, returned) {
    this.server = server;
    this.notices = notices;
    this.returned = returned;
    this.waiting = false;
    this.refused = null; // what the bar is about
  }

  /** The answer to a question, or null where there is none; why is said until the same `topic` is answered. */
  async attempt(topic, ask) {
    try {
      const answer = await ask(this.server);
      if (this.refused === topic) this.notices.hide("refused");
      return answer ?? null;
    } catch (error) {
      this.#failed(topic, error);
      return null;
    }
  }

  #failed(topic, error) {
    if (error.name === "AbortError") return;
    if (error instanceof Offline) return this.waiting || this.#wait();
    this.refused = topic;
    this.notices.show("refused", () => error.message);
  }

  async #wait() {
    this.waiting = true;
    this.notices.show("offline");
    while (this.waiting) {
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      this.waiting = !(await this.#answers());
    }
    this.notices.hide("offline");
    this.returned();
  }

  async #answers() {
    try {
      await this.server.get("health");
      return true;
    } catch (error) {
      return !(error instanceof Offline);
    }
  }
}
