// One psql of the terminal pane: its screen, its prompt, what was typed into it.

import { makeScreen } from "./screen.js";

const KEPT = 200;

export function makePsql({ opened, label, name }, onPrompt) {
  const psql = { number: opened, label, name, running: true, lost: false, prompt: null, history: [], at: 0 };
  psql.screen = makeScreen((text) => {
    psql.prompt = text;
    // psql puts `!` where it has no connection: the session is over, though the program runs on.
    if (text !== null) psql.lost = text.startsWith("!");
    onPrompt(psql);
  });
  return psql;
}

export const lives = (psql) => psql.running && !psql.lost;

export function remember(psql, text) {
  if (text.trim() && psql.history.at(-1) !== text) psql.history.push(text);
  psql.history = psql.history.slice(-KEPT);
  psql.at = psql.history.length;
}

export function recalled(psql, step) {
  psql.at = Math.min(Math.max(psql.at + step, 0), psql.history.length);
  return psql.history[psql.at] || "";
}
