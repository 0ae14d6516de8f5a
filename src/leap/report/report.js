"use strict";
// Shows one of the embedded episodes. All text comes from models and data: it becomes text nodes, never markup.
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const text = (index) => data.texts[index];
  const byId = (id) => document.getElementById(id);
  const from = byId("from"), outcome = byId("outcome"), kind = byId("kind");
  const list = byId("list"), panel = byId("episode");
  const subscript = (i) => "π" + String(i).replace(/\d/g, (d) => "₀₁₂₃₄₅₆₇₈₉"[d]);
  const words = (name) => (name || "(no type)").replaceAll("_", " ");
  const stops = {
    success: "solved", ended: "ended by the environment", horizon: "horizon reached", model_error: "model error",
    environment_error: "environment error",
  };
  let shown = [], current = -1;

  function make(tag, className, ...children) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }

  function option(value, label) {
    const node = make("option", "", label);
    node.value = value;
    return node;
  }

  function setUp() {
    from.append(option("", `everything shown (${data.episodes.length})`));
    data.groups.forEach((group, index) => {
      const number = data.episodes.filter((one) => one.group === index).length;
      const place = group.role === "rollouts" ? `iteration ${group.iteration}: ` : "";
      from.append(option(String(index), `${place}${group.title} (${number} of ${group.total})`));
    });
    kind.append(option("*", "all"));
    for (const name of [...new Set(data.episodes.map((one) => one.kind))].sort()) kind.append(option(name, words(name)));
    const first = data.groups.findIndex((group, index) => data.episodes.some(
      (one) => one.group === index && one.steps.some((step) => step.teacher)));
    if (first >= 0) from.value = String(first);
    for (const select of [from, outcome, kind]) select.addEventListener("change", () => fill(null));
  }

  function fill(wanted) {
    shown = data.episodes.filter((one) =>
      (from.value === "" || one.group === Number(from.value)) &&
      (outcome.value === "" || one.success === (outcome.value === "solved")) &&
      (kind.value === "*" || one.kind === kind.value));
    list.replaceChildren(...shown.map(entry));
    const solved = shown.filter((one) => one.success).length;
    byId("count").textContent = `${shown.length} episodes: ${solved} solved, ${shown.length - solved} failed`;
    current = -1;
    if (shown.length) select(Math.max(0, shown.findIndex((one) => one.key === wanted)), false);
    else panel.replaceChildren(make("p", "empty", "No shown episode fits these filters."));
  }

  function entry(one, index) {
    const taught = one.steps.filter((step) => step.teacher);
    const other = taught.filter((step) => step.teacher.action !== step.action).length;
    const facts = [words(one.kind), `${one.steps.length} steps`];
    if (taught.length) facts.push(`teacher differs at ${other}`);
    const node = make("li", one.success ? "solved" : "failed",
      make("span", "mark", one.success ? "✓" : "✗"),
      make("span", "title", text(one.task)), make("small", "", facts.join(" · ")));
    node.id = `option-${index}`;
    node.setAttribute("role", "option");
    node.setAttribute("aria-label", `${one.success ? "solved" : "failed"}: ${text(one.task)}, ${facts.join(", ")}`);
    node.addEventListener("click", () => select(index, true));
    return node;
  }

  function select(index, byHand) {
    if (index < 0 || index >= shown.length) return;
    for (const node of list.querySelectorAll("[aria-selected]")) node.removeAttribute("aria-selected");
    current = index;
    const node = list.children[index];
    node.setAttribute("aria-selected", "true");
    list.setAttribute("aria-activedescendant", node.id);
    if (node.offsetTop < list.scrollTop || node.offsetTop + node.offsetHeight > list.scrollTop + list.clientHeight) {
      list.scrollTop = node.offsetTop - list.clientHeight / 3;
    }
    show(shown[index]);
    if (byHand && panel.getBoundingClientRect().top < 0) panel.scrollIntoView();
    if (byHand) history.replaceState(null, "", `#episode=${shown[index].key}`);
  }

  function show(one) {
    const group = data.groups[one.group];
    const who = one.i >= 0 ? `${one.actor} ${subscript(one.i)}` : one.actor;
    const end = make("span", one.success ? "chip good" : "chip bad", stops[one.stop] || one.stop);
    const score = one.score > 0 && one.score < 1 ? ` · score ${one.score}` : "";
    panel.replaceChildren(
      make("h3", "", text(one.task)),
      make("p", "facts", end, ` ${one.steps.length} of at most ${one.horizon} actions${score} · ${words(one.kind)}`),
      make("p", "facts", `${who} on ${one.split} · ${group.title} · seed ${one.seed} · `, make("code", "", one.id)),
      ...(one.error === null ? [] : [make("p", "facts bad", text(one.error))]),
      strip(one),
      ...one.steps.map(stepNode),
      make("section", "step last", make("span", "t", "end"),
        make("div", "seen", text(one.final)), make("p", "facts", stops[one.stop] || one.stop)));
  }

  // One small button for each step, coloured by what the teacher made of it: the episode at a glance.
  function strip(one) {
    return make("div", "strip", ...one.steps.map((step, t) => {
      const teacher = step.teacher;
      const how = !teacher ? "" : teacher.rejected ? "rejected" : teacher.action === step.action ? "same" : "differs";
      const said = { rejected: ": correction rejected", same: ": teacher agrees", differs: ": teacher differs" }[how] || "";
      const button = make("button", how, String(t));
      button.type = "button";
      button.title = `step ${t}${said}`;
      button.addEventListener("click", () => panel.querySelectorAll(".step")[t].scrollIntoView());
      return button;
    }));
  }

  function stepNode(step, t) {
    const node = make("section", "step", make("span", "t", String(t)), make("div", "seen", text(step.seen)));
    const teacher = step.teacher;
    if (teacher && teacher.action !== step.action) node.classList.add("differs");
    const notes = [];
    if (step.inadmissible) notes.push(make("span", "chip bad", "not admissible"));
    if (step.raw !== undefined) notes.push(make("span", "chip bad", "no action could be read"));
    const student = side("student", teacher || step.reason !== undefined ? "student" : "", step.action,
      step.reason === undefined ? null : text(step.reason), [], notes);
    if (step.raw !== undefined) student.append(fold("as generated", text(step.raw)));
    const pair = make("div", teacher ? "pair" : "pair alone", student);
    if (teacher) pair.append(corrected(step, teacher));
    node.append(pair);
    if (step.state) node.append(fold("privileged state", step.state.map(text).join("\n")));
    return node;
  }

  function corrected(step, teacher) {
    const same = teacher.action === step.action;
    const chips = [];
    if (teacher.action !== undefined && text(teacher.action)) {
      chips.push(make("span", same ? "chip" : "chip new", same ? "same action" : "another action"));
    }
    if (teacher.rejected) chips.push(make("span", "chip bad", `rejected: ${data.causes[teacher.rejected] || teacher.rejected}`));
    else chips.push(make("span", "chip", "kept"));
    if (teacher.leaked.length) chips.push(make("span", "chip leak", `leaks ${teacher.leaked.join(", ")}`));
    if (teacher.left !== null) chips.push(make("span", "chip quiet", `${teacher.left} actions to go at best`));
    return side("teacher", "teacher", teacher.action, text(teacher.reason), teacher.leaked, chips);
  }

  function side(className, label, action, reason, leaked, chips) {
    const node = make("div", `side-${className}`, label ? make("span", "speaker", label) : null);
    if (reason) node.append(make("p", "reason", ...marked(reason, leaked)));
    if (text(action)) node.append(make("p", "action", text(action)));
    if (chips.length) node.append(make("p", "chips", ...chips));
    return node;
  }

  // The reason with every leaked entity in a <mark>, but not "mug 1" inside "mug 12".
  function marked(reason, leaked) {
    const parts = [];
    let rest = 0;
    const edge = (character) => character === undefined || !/[\p{L}\p{N}]/u.test(character);
    for (let at = 0; at < reason.length;) {
      const found = leaked.filter((name) => name && reason.startsWith(name, at) && edge(reason[at - 1]) &&
        edge(reason[at + name.length])).sort((a, b) => b.length - a.length)[0];
      if (!found) { at += 1; continue; }
      parts.push(reason.slice(rest, at), make("mark", "", found));
      rest = at += found.length;
    }
    parts.push(reason.slice(rest));
    return parts;
  }

  function fold(label, content) {
    return make("details", "", make("summary", "", label), make("div", "state", content));
  }

  function jump(direction, selector) {
    const steps = [...panel.querySelectorAll(selector)];
    const places = steps.map((node) => node.getBoundingClientRect().top - parseFloat(getComputedStyle(node).scrollMarginTop));
    const index = direction > 0 ? places.findIndex((y) => y > 4) : places.findLastIndex((y) => y < -4);
    if (index >= 0) steps[index].scrollIntoView();
  }

  function open(key) {
    const one = data.episodes.find((candidate) => candidate.key === key);
    if (!one) return false;
    from.value = String(one.group);
    outcome.value = "";
    kind.value = "*";
    fill(key);
    byId("episodes").scrollIntoView();
    return true;
  }

  function followHash() {
    const found = /^#episode=(\w+)$/.exec(location.hash);
    return found !== null && open(found[1]);
  }

  document.querySelector(".browser").hidden = data.episodes.length === 0;
  if (data.episodes.length === 0) return;
  setUp();
  if (!followHash()) {
    const corrected = data.episodes.find((one) => one.steps.some((step) => step.teacher));
    fill(corrected ? corrected.key : null);
  }
  window.addEventListener("hashchange", followHash);
  for (const link of document.querySelectorAll("a[data-key]")) {
    if (!data.episodes.some((one) => one.key === link.dataset.key)) link.replaceWith(...link.childNodes);
  }
  list.addEventListener("keydown", (event) => {
    const moves = { ArrowDown: current + 1, ArrowUp: current - 1, Home: 0, End: shown.length - 1 };
    if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    select(moves[event.key], true);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, input, textarea")) return;
    if (event.key === "j") jump(1, ".step");
    else if (event.key === "k") jump(-1, ".step");
    else if (event.key === "n") jump(1, ".step.differs");
    else if (panel.contains(event.target) && event.key === "ArrowRight") select(current + 1, true);
    else if (panel.contains(event.target) && event.key === "ArrowLeft") select(current - 1, true);
  });
})();
