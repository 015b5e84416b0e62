// Asking the server.

const PATIENCE_MS = 10_000;

/** The body of an answer as `kind`, "json" or "arrayBuffer"; null where there is no news. */
export async function ask(path, kind, stop = new AbortController()) {
  const patience = setTimeout(() => stop.abort(), PATIENCE_MS);
  try {
    const answer = await fetch(path, { cache: "no-store", signal: stop.signal });
    if (answer.status === 204) return null;
    if (answer.ok) return await answer[kind]();
    throw new Refusal(answer.status);
  } finally {
    clearTimeout(patience);
  }
}

/** The server answers, but not what was asked for; the message is for the user. */
export class Refusal extends Error {
  constructor(status) {
    super(
      status === 401
        ? "The token is no longer right: open the address that the stream printed."
        : status === 503
          ? "Too many viewers. Trying again…"
          : `The server answers ${status}. Trying again…`,
    );
  }
}
