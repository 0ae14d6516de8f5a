"use strict";
// Lists episodes, and shows one or two beside each other. All text comes from models and data: it becomes text nodes, never markup.
const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const words = (name) => (name || "(no type)").replaceAll("_", " ");
const subscript = (i) => "π" + String(i).replace(/\d/g, (d) => "₀₁₂₃₄₅₆₇₈₉"[d]);
const stops = (one) => data.stops[one.stop] || one.stop;

function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// An episode with its texts in place of their numbers.
function unpacked(one, texts) {
  const text = (number) => number === null || number === undefined ? number : texts[number];
  const steps = one.steps.map((step) => ({
    ...step, seen: text(step.seen), action: text(step.action), reason: text(step.reason), raw: text(step.raw),
    state: step.state && step.state.map(text).join("\n"),
    teacher: step.teacher && { ...step.teacher, action: text(step.teacher.action), reason: text(step.teacher.reason) },
  }));
  return { ...one, task: text(one.task), error: text(one.error), final: text(one.final), steps };
}

const holds = (value, wanted) => typeof value === "string" ? value.toLowerCase().includes(wanted)
  : value !== null && typeof value === "object" && Object.values(value).some((inner) => holds(inner, wanted));

// A source gives: episode(row), whole; search(text), the keys of the episodes that hold it; others(), files of other runs to set
// beside; and, where there is more on file, details(row, t, whole) of a step and extras(row) of an episode.
function browse(source) {
  const menus = Object.fromEntries(["from", "beside", "outcome", "kind", "stop", "taught", "trouble"].map((id) => [id, byId(id)]));
  const search = byId("search"), scroll = byId("scroll"), list = byId("list"), panel = byId("episode");
  const OVER = 30;  // rows drawn beyond those in sight
  let groups = [], rows = [], tasks = [], shown = [], drawn = [], current = -1, height = 0, turn = 0;

  const tests = {
    from: (row, value) => row.group === Number(value),
    outcome: (row, value) => value === "solved" ? row.success : value === "failed" ? !row.success
      : row.other !== undefined && (value === "first" ? row.success && !row.other.success : !row.success && row.other.success),
    kind: (row, value) => value === "*" || row.kind === value,
    stop: (row, value) => row.stop === value,
    taught: (row, value) => row.rejected !== null && (value === "kept" ? row.kept > 0 : value === "differs" ? row.differs > 0
      : value === "any" ? row.rejected.length > 0 : row.rejected.includes(value)),
    trouble: (row, value) => value === "again" ? row.again >= data.circles : row[value] > 0,
  };

  function option(value, label) {
    const node = make("option", "", label);
    node.value = value;
    return node;
  }

  const title = (group) => `${group.role === "rollouts" ? `iteration ${group.iteration}: ` : ""}${group.title}`;

  // The choices of the menus, anew; what was chosen stays chosen where it is still there.
  function choices(numbers) {
    const options = {
      from: [option("", `everything shown (${rows.length})`), ...groups.map((group, index) => option(
        String(index), `${title(group)} (${numbers[index]}${numbers[index] < group.total ? ` of ${group.total}` : ""})`))],
      beside: [option("", "nothing"), ...[...groups.map((group) => ["", group.file, title(group)]), ...source.others()].map(
        ([run, file, label]) => option(`${run}|${file}`, label))],
      kind: [option("*", "all"), ...[...new Set(rows.map((row) => row.kind))].sort().map((name) => option(name, words(name)))],
      stop: [option("", "any way"), ...[...new Set(rows.map((row) => row.stop))].map((stop) => option(stop, stops({ stop })))],
    };
    for (const [id, nodes] of Object.entries(options)) {
      const chosen = id === "from" && menus.from.value ? String(groups.findIndex((group) => group.file === menus.from.file))
        : menus[id].value;
      menus[id].replaceChildren(...nodes);
      if (nodes.some((node) => node.value === chosen)) menus[id].value = chosen;
    }
  }

  function update(table) {
    const first = rows.length === 0, key = shown[current] && shown[current].key;
    groups = table.groups;
    rows = table.rows.map((values) => ({
      ...Object.fromEntries(table.columns.map((name, place) => [name, values[place]])), file: groups[values[0]].file }));
    tasks = groups.map(() => new Set());
    const numbers = groups.map(() => 0);
    for (const row of rows) {
      numbers[row.group] += 1;
      tasks[row.group].add(row.task);
    }
    choices(numbers);
    document.querySelector(".browser").hidden = rows.length === 0;
    const corrected = rows.find((row) => row.rejected !== null);
    if (first && corrected) menus.from.value = String(corrected.group);
    return fill(first ? corrected && corrected.key : key, first);
  }

  // The rows that fit, with the one of that key chosen; it is shown anew only where that is asked for or another takes its place.
  async function fill(wanted, anew = true) {
    const own = tasks[menus.from.value];
    for (const node of menus.beside.options) {
      const other = tasks[groups.findIndex((group) => node.value === `|${group.file}`)];
      node.hidden = own !== undefined && other !== undefined && (own === other || ![...own].some((task) => other.has(task)));
    }
    const mine = turn += 1, text = search.value.trim(), [run, file] = menus.beside.value.split("|");
    const [found, beside] = await Promise.all([text ? source.search(text) : null, file ? source.rows(run, file, rows) : null]);
    if (mine !== turn) return;
    const pairs = beside && new Map(beside.map((row) => [row.task, row]));
    menus.from.file = menus.from.value && groups[menus.from.value].file;
    shown = rows.map((row) => pairs ? { ...row, other: pairs.get(row.task) } : row).filter((row) =>
      (!pairs || (row.other !== undefined && (row.other.key !== row.key || row.other.run))) && (!found || found.has(row.key)) &&
      Object.entries(tests).every(([id, test]) => menus[id].value === "" || test(row, menus[id].value)));
    const solved = shown.filter((row) => row.success).length, theirs = shown.filter((row) => row.other && row.other.success).length;
    byId("count").textContent = `${shown.length} episodes: ${solved} solved, ${shown.length - solved} failed` +
      (pairs ? `; beside them ${theirs} solved` : "");
    const place = shown.findIndex((row) => row.key === wanted);
    current = -1;
    draw();
    const apart = pairs && ![...own || rows.map((row) => row.task)].some((task) => pairs.has(task));
    if (!shown.length) panel.replaceChildren(make("p", "empty", apart ? "What is shown and what stands beside it have no task in common."
      : "No shown episode fits these filters."));
    else if (anew || place < 0) return select(Math.max(0, place), false);
    else current = place, draw();
  }

  // The rows in sight, and room for the others.
  function draw() {
    height = height || (list.firstElementChild && list.firstElementChild.offsetHeight) || 62;
    const first = Math.max(0, Math.floor(scroll.scrollTop / height) - OVER);
    const last = Math.min(shown.length, Math.ceil((scroll.scrollTop + scroll.clientHeight) / height) + OVER);
    if (drawn[0] !== shown || drawn[1] !== first || drawn[2] !== last) {
      list.style.paddingTop = `${first * height}px`;
      list.style.paddingBottom = `${Math.max(0, shown.length - last) * height}px`;
      list.replaceChildren(...shown.slice(first, last).map((row, place) => entry(row, first + place)));
      drawn = [shown, first, last];
    }
    for (const node of list.children) {
      if (node.id === `option-${current}`) node.setAttribute("aria-selected", "true");
      else node.removeAttribute("aria-selected");
    }
    if (current >= 0) list.setAttribute("aria-activedescendant", `option-${current}`);
    else list.removeAttribute("aria-activedescendant");
  }

  function entry(row, index) {
    const facts = [words(row.kind), `${row.steps} steps`];
    if (row.rejected !== null) facts.push(`teacher differs at ${row.differs}`);
    if (row.rejected !== null && row.rejected.length) facts.push("rejected ones");
    const mark = [row, ...(row.other ? [row.other] : [])].map((one) => one.success ? "✓" : "✗").join("");
    const node = make("li", `${row.success ? "solved" : "failed"}${row.other ? " two" : ""}`,
      make("span", "mark", mark), make("span", "title", row.title), make("small", "", facts.join(" · ")));
    node.id = `option-${index}`;
    node.dataset.index = index;
    node.setAttribute("role", "option");
    node.setAttribute("aria-setsize", shown.length);
    node.setAttribute("aria-posinset", index + 1);
    node.setAttribute("aria-label", `${row.success ? "solved" : "failed"}: ${row.title}, ${facts.join(", ")}`);
    return node;
  }

  async function select(index, byHand) {
    if (index < 0 || index >= shown.length) return;
    current = index;
    const top = index * height;
    if (top < scroll.scrollTop || top + height > scroll.scrollTop + scroll.clientHeight) {
      scroll.scrollTop = top - scroll.clientHeight / 3;
    }
    draw();
    const row = shown[index];
    if (byHand) history.replaceState(null, "", `#episode=${row.key}`);
    try {
      const [one, other] = await Promise.all([source.episode(row), row.other && source.episode(row.other)]);
      if (!shown[current] || shown[current].key !== row.key) return;  // another was chosen meanwhile
      panel.replaceChildren(...(other ? compared(row, one, other) : whole(row, one)));
    } catch (error) {
      panel.replaceChildren(make("p", "empty", error.message));
    }
    if (byHand && panel.getBoundingClientRect().top < 0) panel.scrollIntoView();
  }

  const score = (one) => one.score > 0 && one.score < 1 ? ` · score ${one.score}` : "";
  const ended = (one) => make("span", one.success ? "chip good" : "chip bad", stops(one));

  function about(row, one) {
    const who = one.i >= 0 ? `${one.actor} ${subscript(one.i)}` : one.actor, where = row.where || title(groups[row.group]);
    return [
      make("p", "facts", ended(one), ` ${one.steps.length} of at most ${one.horizon} actions${score(one)} · ${words(one.kind)}`),
      make("p", "facts", `${who} on ${one.split} · ${where} · seed ${one.seed} · `, make("code", "", one.id)),
      ...(one.error ? [make("p", "facts bad", one.error)] : []),
    ];
  }

  function whole(row, one) {
    const how = (step) => !step.teacher ? "" : step.teacher.rejected ? "rejected" : step.teacher.action === step.action ? "same" : "differs";
    return [make("h3", "", one.task), ...about(row, one), ...(source.extras ? source.extras(row, one) : []), strip(one.steps.map(how)),
      ...one.steps.map((step, t) => stepNode(row, step, t)), last(one)];
  }

  function last(one) {
    return make("section", "step last", make("span", "t", "end"), make("div", "seen", one.final), make("p", "facts", stops(one)));
  }

  // Two episodes of one task: what both saw and did, and where they part.
  function compared(row, one, other) {
    const steps = Math.max(one.steps.length, other.steps.length), alike = [];
    for (let t = 0; t < steps; t += 1) {
      const [a, b] = [one.steps[t], other.steps[t]];
      if (!a || !b || a.seen !== b.seen || a.action !== b.action) break;
      alike.push(t);
    }
    const part = alike.length, parted = part < steps;
    const heads = [[row, one, "first"], [row.other, other, "second"]].map(([own, told, label]) =>
      make("div", "", make("span", "speaker", label), ...about(own, told)));
    const nodes = Array.from({ length: steps }, (_, t) => {
      const [a, b] = [one.steps[t], other.steps[t]], together = a && b && a.seen === b.seen;
      const node = make("section", t < part ? "step" : "step differs", make("span", "t", String(t)));
      if (t === part) node.append(make("p", "facts parting", "Here they part."));
      if (together) node.append(make("div", "seen", a.seen));
      node.append(make("div", "pair", ...[[a, "first", row], [b, "second", row.other]].map(([step, label, own]) => !step ? make("div") :
        make("div", "", together ? null : make("div", "seen", step.seen), ...acted(own, step, t, label, null, false)))));
      return node;
    });
    const end = make("section", "step last", make("span", "t", "end"), make("div", "pair", ...[one, other].map((told) =>
      make("div", "", make("div", "seen", told.final), make("p", "facts", ended(told))))));
    const told = parted ? `They part at step ${part}.` : "They do the same from beginning to end.";
    return [make("h3", "", one.task), make("div", "pair", ...heads), make("p", "parted", told),
      strip(nodes.map((_, t) => t < part ? "same" : t === part ? "differs" : "")), ...nodes, end];
  }

  // One small button for each step, coloured by what the teacher made of it: the episode at a glance.
  function strip(hows) {
    const said = { rejected: ": correction rejected", same: ": the same", differs: ": another action" };
    return make("div", "strip", ...hows.map((how, t) => {
      const button = make("button", how, String(t));
      button.type = "button";
      button.title = `step ${t}${said[how] || ""}`;
      button.addEventListener("click", () => panel.querySelectorAll(".step")[t].scrollIntoView());
      return button;
    }));
  }

  function stepNode(row, step, t) {
    const node = make("section", "step", make("span", "t", String(t)), make("div", "seen", step.seen));
    const teacher = step.teacher;
    if (teacher && teacher.action !== step.action) node.classList.add("differs");
    const speaker = teacher || step.reason !== undefined ? "student" : "";
    const pair = make("div", teacher ? "pair" : "pair alone", ...acted(row, step, t, speaker, teacher, true));
    if (teacher) pair.append(corrected(step, teacher));
    node.append(pair);
    if (step.state) node.append(fold("privileged state", [step.state]));
    return node;
  }

  // What was thought and done in a step, and what is behind it.
  function acted(row, step, t, speaker, teacher, whole) {
    const notes = [];
    if (step.inadmissible) notes.push(make("span", "chip bad", "not admissible"));
    if (step.raw !== undefined) notes.push(make("span", "chip bad", "no action could be read"));
    const node = side("student", speaker, step.action, step.reason || null, [], notes);
    if (source.details) node.append(fold("prompt and answer", () => source.details(row, t)));
    else if (step.raw !== undefined) node.append(fold("as generated", [step.raw]));
    return [node];
  }

  function corrected(step, teacher) {
    const same = teacher.action === step.action;
    const chips = [];
    if (teacher.action) chips.push(make("span", same ? "chip" : "chip new", same ? "same action" : "another action"));
    if (teacher.rejected) chips.push(make("span", "chip bad", `rejected: ${data.causes[teacher.rejected] || teacher.rejected}`));
    else chips.push(make("span", "chip", "kept"));
    if (teacher.leaked.length) chips.push(make("span", "chip leak", `leaks ${teacher.leaked.join(", ")}`));
    if (teacher.gain) chips.push(make("span", "chip quiet", `gains ${teacher.gain.toFixed(2)} when tried`));
    if (teacher.left !== null) chips.push(make("span", "chip quiet", `${teacher.left} actions to go at best`));
    return side("teacher", "teacher", teacher.action, teacher.reason, teacher.leaked, chips);
  }

  function side(className, label, action, reason, leaked, chips) {
    const node = make("div", `side-${className}`, label ? make("span", "speaker", label) : null);
    if (reason) node.append(make("p", "reason", ...marked(reason, leaked)));
    if (action) node.append(make("p", "action", action));
    if (chips.length) node.append(make("p", "chips", ...chips));
    return node;
  }

  // The reason with every leaked entity in a <mark>, but not "mug 1" inside "mug 12".
  function marked(reason, leaked) {
    const parts = [];
    let rest = 0;
    const edge = (character) => character === undefined || !/[\p{L}\p{N}]/u.test(character);
    for (let at = 0; at < reason.length;) {
      const hit = leaked.filter((name) => name && reason.startsWith(name, at) && edge(reason[at - 1]) &&
        edge(reason[at + name.length])).sort((a, b) => b.length - a.length)[0];
      if (!hit) { at += 1; continue; }
      parts.push(reason.slice(rest, at), make("mark", "", hit));
      rest = at += hit.length;
    }
    parts.push(reason.slice(rest));
    return parts;
  }

  function jump(direction, selector) {
    const steps = [...panel.querySelectorAll(selector)];
    const places = steps.map((node) => node.getBoundingClientRect().top - parseFloat(getComputedStyle(node).scrollMarginTop));
    const index = direction > 0 ? places.findIndex((y) => y > 4) : places.findLastIndex((y) => y < -4);
    if (index >= 0) steps[index].scrollIntoView();
  }

  function followHash() {
    const hash = /^#episode=(\w+)$/.exec(location.hash), row = hash && rows.find((one) => one.key === hash[1]);
    if (!row) return false;
    for (const menu of Object.values(menus)) menu.value = menu.id === "kind" ? "*" : menu.id === "from" ? String(row.group) : "";
    search.value = "";
    fill(row.key);
    byId("episodes").scrollIntoView();
    return true;
  }

  for (const menu of Object.values(menus)) menu.addEventListener("change", () => fill(shown[current] && shown[current].key));
  let waiting = 0;
  search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => fill(null), 250); });
  scroll.addEventListener("scroll", () => requestAnimationFrame(draw));
  list.addEventListener("click", (event) => {
    const node = event.target.closest("li");
    if (node) select(Number(node.dataset.index), true);
  });
  window.addEventListener("hashchange", followHash);
  list.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(scroll.clientHeight / height) - 1);
    const moves = { ArrowDown: current + 1, ArrowUp: current - 1, Home: 0, End: shown.length - 1,
      PageDown: Math.min(current + page, shown.length - 1), PageUp: Math.max(current - page, 0) };
    if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    select(moves[event.key], true);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, input, textarea")) return;
    if (event.key === "j") jump(1, ".step");
    else if (event.key === "k") jump(-1, ".step");
    else if (event.key === "n") jump(1, ".step.differs");
    else if (event.key === "/") search.focus();
    else if (panel.contains(event.target) && event.key === "ArrowRight") select(current + 1, true);
    else if (panel.contains(event.target) && event.key === "ArrowLeft") select(current - 1, true);
    else return;
    event.preventDefault();
  });
  return { update, followHash, knows: (key) => rows.some((row) => row.key === key) };
}

// Text or nodes behind a fold: those given, or those that a function gives when it is opened.
function fold(label, content) {
  const node = make("details", "", make("summary", "", label)), inside = make("div", Array.isArray(content) ? "state" : "told");
  node.append(inside);
  if (Array.isArray(content)) inside.append(...content);
  node.addEventListener("toggle", async () => {
    if (!node.open || inside.childNodes.length) return;
    inside.append("…");
    try {
      inside.replaceChildren(...await content());
    } catch (error) {
      inside.replaceChildren(error.message);
    }
  });
  return node;
}
