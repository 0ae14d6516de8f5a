// The page that is served: it asks for episodes as they are opened, and looks every few seconds for what is new.
(function () {
  const get = async (what, query = {}, run = "") => {
    const answer = await fetch(`${run === "" ? "" : `../${run}/`}${what}${what && "?"}${new URLSearchParams(query)}`);
    if (!answer.ok) throw new Error(await answer.text());
    return answer;
  };
  const parsed = async (answer) => new DOMParser().parseFromString(await answer.text(), "text/html");
  const nodes = async (answer) => [...(await parsed(answer)).body.childNodes];
  const place = (row) => ({ file: row.file, place: row.place });
  let elsewhere = [], version = "", made = "", newest = 30;

  const browser = browse({
    episode: async (row) => {
      const { episode, texts } = await (await get("episode", place(row), row.run)).json();
      return unpacked(episode, texts);
    },
    search: async (text) => new Set(await (await get("search", { text })).json()),
    others: () => elsewhere,
    rows: async (run, file, rows) => {
      if (run === "") return rows.filter((row) => row.file === file);
      const table = await (await get("rows", {}, run)).json();
      const group = table.groups.findIndex((one) => one.file === file), where = `${data.runs[run]}: ${table.groups[group].title}`;
      return table.rows.filter((row) => row[0] === group).map((row) => ({
        ...Object.fromEntries(table.columns.map((name, at) => [name, row[at]])), run, file, where }));
    },
    details: async (row, t) => nodes(await get("step", { ...place(row), t }, row.run)),
    extras: (row) => [
      fold("privileged states, by a replay", async () => (await (await get("states", place(row), row.run)).json()).map(
        (state, t) => make("p", "state", `step ${t}\n${state}`))),
      ...(data.calls ? [fold("calls about the whole episode", async () => nodes(await get("step", { ...place(row), t: -1 }, row.run)))] : []),
    ],
  });

  // Sections that came out otherwise take the place of those shown; what is read, the list and the calls, stays.
  async function sections() {
    const page = await parsed(await get(""));
    let before = null;
    for (const fresh of page.querySelectorAll("header, section[id]")) {
      const old = fresh.id ? byId(fresh.id) : document.querySelector("header");
      if (!old) before.after(fresh);
      else if (!["progress", "episodes", "asked"].includes(fresh.id) && old.innerHTML !== fresh.innerHTML) old.replaceWith(fresh);
      before = (fresh.id && byId(fresh.id)) || before;
    }
  }

  async function refresh() {
    const began = performance.now();
    try {
      const table = await (await get("rows", { seen: version })).json();
      byId("progress").replaceWith(...new DOMParser().parseFromString(table.progress, "text/html").body.children);
      if (made && table.sections !== made) await sections();
      if (table.rows) await browser.update(table);
      [version, made] = [table.version, table.sections];
    } catch (error) {
      byId("life").textContent = `leap view does not answer: ${error.message}`;
    }
    setTimeout(refresh, Math.max(3000, 10 * (performance.now() - began)));
  }

  async function called() {
    const query = { outcome: byId("came").value, stage: byId("stage").value, task: byId("about").value.trim(), newest };
    const given = Object.fromEntries(Object.entries(query).filter(([, value]) => value !== ""));
    byId("called").replaceChildren(...await nodes(await get("calls", given)));
  }

  for (const kind of ["input", "change"]) {
    document.addEventListener(kind, (event) => {
      if (!event.target.closest("#asked")) return;
      newest = 30;
      called();
    });
  }
  document.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("click", (event) => {
    if (event.target.id !== "older") return;
    newest *= 2;
    called();
  });

  (async () => {
    const others = data.runs.map((name, run) => [name, String(run)]).filter(([, run]) => run !== String(data.run));
    elsewhere = (await Promise.all(others.map(async ([name, run]) => {
      try {
        return (await (await get("files", {}, run)).json()).map((one) => [run, one.file, `${name}: ${one.title}`]);
      } catch {
        return [];  // one that cannot be read is not offered
      }
    }))).flat();
    await refresh();
    browser.followHash();
    if (byId("asked")) await called();
  })();
})();
