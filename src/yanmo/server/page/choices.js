/** What was accepted beside what was not, for a server that keeps it (`yanmo serve --keep-choices`). */

export class Choices {
  constructor() {
    this.prompt = null;
    this.rejected = [];
  }

  /** The pairs that a closed offer makes, with those rejected before it at the same place. */
  close(offer) {
    if (offer.prompt !== this.prompt) this.rejected = [];
    this.prompt = offer.prompt;
    const chosen = offer.shown?.text.slice(0, offer.taken) ?? "";
    const others = offer.candidates.filter((candidate) => candidate !== offer.shown || !offer.taken);
    this.rejected.push(...others.filter((candidate) => candidate.done).map((candidate) => candidate.text));
    if (!chosen) return [];
    const pairs = this.rejected.filter((text) => text && text !== chosen);
    this.rejected = [];
    return pairs.map((rejected) => ({ prompt: offer.prompt, chosen, rejected }));
  }
}
