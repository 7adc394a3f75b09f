/**
 * The server: requests as JSON, answers as JSON or as a stream of pieces.
 *
 * What goes wrong is one of two errors: `Offline`, nobody answers; `Refused`, the server says why not.
 */

export class Offline extends Error {}

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const TOKEN = "yanmo.token";

export class Server {
  /** @param {(wrong: boolean) => Promise<string>} askToken asks for the server's token; "" where there is none */
  constructor(askToken) {
    this.askToken = askToken;
    this.token = sessionStorage.getItem(TOKEN) ?? "";
    this.asking = null; // several requests refused at once ask once
  }

  get(path, signal) {
    return this.#json(path, { signal });
  }

  post(path, body, signal) {
    return this.#json(path, sending(body, signal));
  }

  /** The pieces of a streamed completion, as they come. */
  async *stream(body, signal) {
    const answer = await this.#send("v1/completions", sending({ ...body, stream: true }, signal));
    for await (const line of lines(answer.body)) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      const piece = JSON.parse(data);
      if (piece.error) throw new Refused(500, String(piece.error.message));
      yield piece;
    }
  }

  async #json(path, options) {
    const answer = await this.#send(path, options);
    return answer.status === 204 ? null : answer.json();
  }

  async #send(path, options) {
    const answer = await this.#fetch(path, options);
    if (answer.ok) return answer;
    const refusal = new Refused(answer.status, await said(answer));
    if (answer.status !== 401) throw refusal;
    await this.#renewToken(options.headers?.Authorization, refusal);
    return this.#send(path, options);
  }

  async #fetch(path, options) {
    if (this.token) options.headers = { ...options.headers, Authorization: this.#bearer };
    try {
      return await fetch(new URL(path, document.baseURI), options); // relative: a proxy may serve us in a folder
    } catch (error) {
      throw error.name === "AbortError" ? error : new Offline(error.message);
    }
  }

  /** The token's bytes, for a header has no other characters. */
  get #bearer() {
    return `Bearer ${String.fromCharCode(...new TextEncoder().encode(this.token))}`;
  }

  async #renewToken(sent, refusal) {
    if (this.token && sent !== this.#bearer) return; // another request has asked meanwhile
    this.asking ??= this.askToken(Boolean(sent)).finally(() => (this.asking = null));
    const token = await this.asking;
    if (!token) throw refusal;
    this.token = token;
    sessionStorage.setItem(TOKEN, this.token);
  }
}

function sending(body, signal) {
  const headers = { "Content-Type": "application/json" };
  return { method: "POST", headers, body: JSON.stringify(body), signal };
}

async function said(answer) {
  const text = await answer.text();
  try {
    return String(JSON.parse(text).error.message);
  } catch {
    return `${answer.status} ${answer.statusText}`;
  }
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (let part = await read(reader); !part.done; part = await read(reader)) {
      const whole = (rest + part.value).split("\n");
      rest = whole.pop();
      yield* whole;
    }
  } finally {
    reader.cancel().catch(() => {}); // a stream that is left early frees its place in the server
  }
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    throw error.name === "AbortError" ? error : new Offline(error.message);
  }
}
