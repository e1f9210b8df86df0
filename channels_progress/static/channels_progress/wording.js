/* Words from the server, numbers and durations in the page's language. */

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86400;

export class Wording {
  #words = {};
  #units = {};
  #number;
  #significant;
  #plural;

  constructor(root = document) {
    const language = root.documentElement.lang || undefined;
    this.#number = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });
    this.#significant = new Intl.NumberFormat(language, { maximumSignificantDigits: 3 });
    this.#plural = new Intl.PluralRules(language);
    for (const script of root.querySelectorAll('script[id="progress-words"]')) {
      const { words, units } = JSON.parse(script.textContent);
      Object.assign(this.#words, words);
      Object.assign(this.#units, units);
    }
  }

  /* The sentence of that name with its {places} filled; its name if there is none. */
  say(name, values = {}) {
    const sentence = this.#words[name] ?? name;
    return sentence.replace(/{(\w+)}/g, (place, key) => values[key] ?? place).trim();
  }

  number(n) {
    return this.#number.format(n);
  }

  percent(n) {
    return n == null ? "" : this.say("percent", { n: this.number(n) });
  }

  /* Two neighbouring units at most, rounded down: 12 s, 4 min 20 s, 1 h 5 min, 2 d 3 h. */
  duration(seconds) {
    const s = Math.floor(seconds);
    if (s < MINUTE) return this.#time("s", s);
    if (s < HOUR) return this.#pair("min", Math.floor(s / MINUTE), "s", s % MINUTE);
    const min = Math.floor(s / MINUTE);
    if (s < DAY) return this.#pair("h", Math.floor(s / HOUR), "min", min % 60);
    return this.#pair("d", Math.floor(s / DAY), "h", Math.floor(s / HOUR) % 24);
  }

  /* How long something took, in ms; under ten seconds a tenth is worth telling. */
  took(ms) {
    return ms < 10_000 ? this.#time("s", Math.floor(ms / 100) / 10) : this.duration(ms / 1000);
  }

  #time(unit, n) {
    return this.say(`time.${unit}`, { n: this.number(n) });
  }

  #pair(large, n, small, m) {
    return m ? `${this.#time(large, n)} ${this.#time(small, m)}` : this.#time(large, n);
  }

  /* The plural that belongs to n: the server sends a unit's forms for 0, 1, 2 ... */
  unit(unit, n) {
    const forms = this.#units[unit];
    if (!forms) return !unit || n === 1 ? unit : `${unit}s`;
    const category = this.#plural.select(n);
    const same = forms.findIndex((_, i) => this.#plural.select(i) === category);
    return forms[same] ?? forms.at(-1);
  }

  /* 4,200 of 10,000 transforms */
  count({ current, total, unit = "" }) {
    if (current == null || (total == null && !current)) return "";
    const values = { current: this.number(current), total: this.number(total ?? 0) };
    if (total == null) return this.say("count.open", { ...values, unit: this.unit(unit, current) });
    const name = current > total ? "count.past" : "count.of";
    return this.say(name, { ...values, unit: this.unit(unit, total) });
  }

  elapsed(snapshot) {
    const { started, ended } = snapshot.envelope;
    if (!started) return "";
    return ended ? this.took(ended - started) : this.duration(snapshot.age("started"));
  }

  rate({ rate, unit }) {
    if (!rate) return "";
    const [name, n] = rate < 1 ? ["rate.min", rate * MINUTE] : ["rate.s", rate];
    return this.say(name, { n: this.#significant.format(n), unit: this.unit(unit, n) });
  }
}
