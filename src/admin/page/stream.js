// The events of the gateway, once a second: read with fetch, which can send the token where EventSource
// cannot. Broken off, it is taken up again; while the page is hidden nobody listens.

const PAUSES = [500, 1000, 2000, 5000];

export class Stream {
  /** `asked()` gives the query, `token()` the token or null; `begun()` comes before what is heard of a new
   * connection, then `heard(event)`; `refused(status, message)`, of null where nobody answers. */
  constructor({ asked, token, begun, heard, refused }) {
    Object.assign(this, { asked, token, begun, heard, refused, failures: 0, run: 0 });
    document.addEventListener("visibilitychange", () => (document.hidden ? this.stop() : this.start()));
  }

  /** Listens anew, to what is asked now. */
  start() {
    this.stop();
    this.listen(++this.run, (this.abort = new AbortController()).signal);
  }

  stop() {
    this.run += 1;
    this.abort?.abort();
  }

  async listen(run, signal) {
    while (run === this.run) {
      try {
        await this.read(run, signal);
        this.failures = 0;
      } catch {
        this.failures += 1;
      }
      if (run !== this.run || this.turnedAway) return;
      const pause = PAUSES[Math.min(this.failures, PAUSES.length - 1)];
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }

  async read(run, signal) {
    this.turnedAway = false;
    const token = this.token();
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    const response = await fetch(`/api/events?${this.asked()}`, { headers, signal, cache: "no-store" }).catch((error) => {
      this.refused(null, null);
      throw error;
    });
    if (!response.ok) {
      this.turnedAway = response.status === 401;
      const told = await response.json().catch(() => null);
      this.refused(response.status, told?.message ?? response.statusText);
      throw new Error("refused");
    }
    this.begun();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done || run !== this.run) return;
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      // Only the newest counts: what piled up while the page was busy is past.
      const newest = events.at(-1);
      if (newest?.startsWith("data: ")) {
        this.failures = 0;
        this.heard(JSON.parse(newest.slice(6)));
      }
    }
  }
}
