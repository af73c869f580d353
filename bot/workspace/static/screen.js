// What psql says, as lines: text only, in a grid, with the prompt apart.

import { el } from "./dom.js";

const MOST_LINES = 4000;
// The prompt comes between these two; everything else below a blank is dropped, but for the tab and the line's end.
const OPEN = "\x1e";
const SHUT = "\x1f";
const KINDS = [
  [/^(psql: )?(error|ERROR|FATAL|PANIC):/, "error"],
  [/^(NOTICE|WARNING|INFO|LOG|DEBUG):/, "notice"],
  [/^(DETAIL|HINT|CONTEXT|QUERY|LOCATION|STATEMENT|LINE \d+):/, "detail"],
];

function kindOf(text) {
  const found = KINDS.find(([pattern]) => pattern.test(text));
  return found ? `line ${found[1]}` : "line";
}

export function makeScreen(onPrompt) {
  const node = el("div", { class: "screen", role: "log", "aria-label": "What psql says", "aria-live": "polite", tabindex: "0" });
  let rest = "";
  let inPrompt = false;
  let prompt = null;
  let partial = null;

  const setPrompt = (text) => {
    prompt = text;
    onPrompt(prompt);
  };

  const put = (text, ended, into) => {
    if (partial) {
      partial.data += text;
      partial.node.textContent = partial.data;
      partial.node.className = kindOf(partial.data);
      if (ended) partial = null;
      return;
    }
    if (!text && !ended) return;
    const line = el("div", { class: kindOf(text) }, text);
    into.append(line);
    if (!ended) partial = { data: text, node: line };
  };

  const write = (raw) => {
    const text = rest + raw;
    rest = "";
    const into = document.createDocumentFragment();
    for (const piece of text.split(/(\n|\x1e|\x1f)/)) {
      if (piece === OPEN) {
        inPrompt = true;
        partial = null;
        rest = "";
      } else if (piece === SHUT) {
        inPrompt = false;
        setPrompt(rest.trimEnd());
        rest = "";
      } else if (inPrompt) {
        rest += piece;
      } else if (piece === "\n") {
        put("", true, into);
      } else if (piece) {
        const clean = piece.replace(/[\x00-\x08\x0b-\x1f\x7f]/g, "");
        // psql writes a blank after its prompt; it is the prompt's own.
        if (clean && !(prompt !== null && clean === " ")) put(clean, false, into);
      }
    }
    if (inPrompt) {
      rest = OPEN + rest;
      inPrompt = false;
    }
    node.append(into);
    trim();
  };

  const trim = () => {
    while (node.childElementCount > MOST_LINES) node.firstElementChild.remove();
  };

  return {
    node,
    write,
    typed(text) {
      partial = null;
      node.append(el("div", { class: "line typed" }, prompt ? el("span", { class: "prompt" }, `${prompt} `) : null, text));
      setPrompt(null);
      trim();
    },
    say(text, kind) {
      partial = null;
      node.append(el("div", { class: `line ${kind}` }, text));
      trim();
    },
    clear: () => node.replaceChildren(),
    reset() {
      node.replaceChildren();
      rest = "";
      inPrompt = false;
      partial = null;
      setPrompt(null);
    },
  };
}

export function columnsOf(node) {
  const probe = el("span", { class: "probe", "aria-hidden": "true" }, "0".repeat(100));
  node.append(probe);
  const width = probe.getBoundingClientRect().width / 100;
  probe.remove();
  const style = getComputedStyle(node);
  const inner = node.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  return width ? Math.floor(inner / width) : 80;
}
