// The report's own episodes, which are in the page.
(function () {
  const episodes = data.episodes.map((one) => unpacked(one, data.texts));
  const whole = new Map(episodes.map((one) => [`${one.group} ${one.key}`, one]));
  const browser = browse({
    episode: async (row) => whole.get(`${row.group} ${row.key}`),
    search: async (text) => new Set(episodes.filter((one) => holds({ ...one, key: 0 }, text.toLowerCase())).map((one) => one.key)),
    rows: async (run, file, rows) => rows.filter((row) => row.file === file),
    others: () => [],
  });
  if (data.episodes.length === 0) return;
  browser.update(data);
  browser.followHash();
  for (const link of document.querySelectorAll("a[data-key]")) {
    if (!browser.knows(link.dataset.key)) link.replaceWith(...link.childNodes);
  }
})();
