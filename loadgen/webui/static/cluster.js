// The Cluster page: one document from the server per look at the cluster, written into the page in place, so that
// focus and selection stay where they are.
"use strict";

(() => {
  const byId = id => document.getElementById(id);
  const meta = name => document.querySelector(`meta[name="raftload-${name}"]`).content;
  const points = new Map();
  const rows = new Map();
  let latest = null;
  let shownEvents = "";
  let seenState = "";

  function write(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function show(document_) {
    latest = document_;
    byId("lost").hidden = true;
    for (const point of document_.load.points) points.set(point[0], point);
    for (const at of points.keys()) if (at < document_.at - 200) points.delete(at);
    summary(document_);
    members(document_);
    states(document_);
    events(document_);
    load(document_);
    draw();
    if (document_.load.state !== seenState) {
      if (document_.load.state === "spawning" && seenState) points.clear();
      seenState = document_.load.state;
    }
  }

  function summary({leader, term, members, silence, at}) {
    const head = byId("leader");
    head.classList.toggle("bad", leader === null);
    write(head, silence && !members.length ? "No cluster" : leader === null ? "Leader: NONE" : `Leader: ${leader}, term ${term}`);
    document.title = leader === null ? "NONE leads - raftload" : `${leader} leads - raftload`;
    const answering = members.filter(member => member.term !== null).length;
    const version = members.map(member => member.version).find(Boolean);
    const parts = [`${answering} of ${members.length} members answer`, version ? `etcd ${version}` : "", silence];
    write(byId("facts"), parts.filter(Boolean).join(" · "));
  }

  // Members and their buttons

  function makeRow(name) {
    const row = document.createElement("tr");
    const cells = {};
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = name;
    row.append(head);
    for (const [key, label, kind] of [
      ["role", "Role", "role"], ["term", "Term", "n"], ["commit", "Commit", "n"], ["applied", "Applied", "n"],
      ["lag", "Lag", "n"], ["rate", "Entries/s", "n"], ["db", "DB", "n"], ["answer", "Answer", "n"],
    ]) {
      const cell = document.createElement("td");
      cell.className = kind;
      cell.dataset.label = label;
      cells[key] = document.createElement("span");
      cell.append(cells[key]);
      row.append(cell);
    }
    const acts = document.createElement("td");
    acts.className = "acts";
    cells.buttons = [];
    cells.acts = acts;
    row.append(acts);
    return {row, cells};
  }

  function addButton({acts, buttons}) {
    const button = document.createElement("button");
    button.type = "button";
    button.addEventListener("click", () => press(button));
    acts.append(button);
    buttons.push(button);
  }

  function members(document_) {
    const names = document_.members.map(member => member.name);
    if ([...rows.keys()].join("\n") !== names.join("\n")) {
      rows.clear();
      for (const name of names) rows.set(name, makeRow(name));
      byId("members").replaceChildren(...[...rows.values()].map(each => each.row));
    }
    for (const member of document_.members) {
      const {row, cells} = rows.get(member.name);
      row.dataset.role = member.role;
      row.title = member.endpoint;
      write(cells.role, member.role + (member.isolated ? ", cut off" : "") + (member.disk ? `, disk ${member.disk}` : ""));
      write(cells.term, count(member.term));
      write(cells.commit, count(member.commit_index));
      write(cells.applied, count(member.applied_index));
      write(cells.lag, count(member.lag));
      write(cells.rate, member.entries_per_s === null ? "-" : count(Math.round(member.entries_per_s)));
      write(cells.db, bytes(member.db_size));
      write(cells.answer, Charts.ms(member.round_trip_ms));
      cells.acts.hidden = !document_.ours;
      while (cells.buttons.length < member.buttons.length) addButton(cells);
      member.buttons.forEach(({fault, label, reason}, index) => {
        const button = cells.buttons[index];
        button.dataset.fault = fault;
        button.dataset.member = member.name;
        write(button, label);
        button.setAttribute("aria-label", `${label}: ${member.name}`);
        button.setAttribute("aria-disabled", String(Boolean(reason)));
        button.title = reason;
      });
    }
    document.querySelector("th.acts").hidden = !document_.ours;
    byId("heal-all").hidden = !document_.ours;
    byId("not-ours").hidden = document_.ours || !document_.members.length;
    const alarms = document_.members.flatMap(member => member.alarms.map(alarm => `${member.name}: ${alarm}`));
    if (byId("alarms").dataset.text !== alarms.join("\n")) {
      byId("alarms").dataset.text = alarms.join("\n");
      byId("alarms").replaceChildren(...alarms.map(item));
    }
  }

  async function press(button) {
    const said = byId("said");
    const {fault, member = ""} = button.dataset;
    const what = `${button.textContent} ${member}`.trim();
    said.classList.remove("bad");
    if (button.getAttribute("aria-disabled") === "true") {
      said.textContent = `${what}: not now, ${button.title}`;
      return;
    }
    said.textContent = `${what} …`;
    button.classList.add("busy");
    try {
      const answer = await fetch(meta("act"), {
        method: "POST",
        headers: {"Content-Type": "application/json", "X-Raftload-Token": meta("token")},
        body: JSON.stringify({fault, member}),
      });
      const document_ = await answer.json();
      said.textContent = document_.text || document_.error;
      said.classList.toggle("bad", !answer.ok);
    } catch (error) {
      said.textContent = `${what}: ${error.message}`;
      said.classList.add("bad");
    } finally {
      button.classList.remove("busy");
    }
  }

  // The states

  function states({members}) {
    const now = {leader: [], follower: [], candidate: []};
    const outside = [];
    let doubt = false;
    for (const {name, role} of members) {
      if (role in now) now[role].push(name);
      else if (role === "no leader") { now.candidate.push(`${name}?`); doubt = true; }
      else outside.push(`${name}: ${role === "no answer" ? "silent" : role}`);
    }
    for (const [state, names] of Object.entries(now)) {
      const group = document.querySelector(`.states [data-state="${state}"]`);
      group.classList.toggle("full", names.length > 0);
      write(group.querySelector(".now"), short(names));
    }
    if (doubt) outside.push("? knows no leader; its status does not say whether it is a candidate");
    write(byId("outside"), outside.join(" · "));
  }

  // Two names whole; of more the first, and where the others differ from it: etcd-node1, 3, 4.
  function short(names) {
    if (names.length < 3) return names.join(", ");
    let same = 0;
    while (names.every(name => name[same] && name[same] === names[0][same])) same++;
    return [names[0], ...names.slice(1).map(name => name.slice(same))].join(", ");
  }

  function events(document_) {
    // What came of an event is added to it, and an election is told once it is over.
    const shown = JSON.stringify(document_.events);
    if (shown === shownEvents) return;
    shownEvents = shown;
    const list = byId("events");
    list.replaceChildren(...[...document_.events].reverse().map(event => {
      const line = document.createElement("li");
      const time = document.createElement("time");
      time.dateTime = event.at;
      time.textContent = new Date(event.at).toLocaleTimeString([], {hour12: false});
      const text = document.createElement("span");
      text.className = event.kind;
      text.textContent = event.text;
      line.append(time, text);
      return line;
    }));
    if (document_.events.some(event => event.text.includes(" is finished"))) runs();
  }

  async function runs() {
    const answer = await fetch(meta("runs"));
    if (!answer.ok) return;
    byId("runs").replaceChildren(...(await answer.json()).map(run => {
      const line = item(`${run.name}: ${run.operations.toLocaleString("en")} operations, `);
      const failed = document.createElement("span");
      failed.className = run.failed ? "bad" : "";
      failed.textContent = `${run.failed.toLocaleString("en")} failed`;
      const verdict = document.createElement("b");
      verdict.className = `verdict ${run.verdict}`;
      verdict.textContent = run.verdict.toUpperCase();
      line.append(failed, `, p99 ${Charts.ms(run.p99_ms)}, `, verdict, " ");
      if (run.diagnosis) {
        const word = document.createElement("b");
        word.className = `said ${run.diagnosis.word}`;
        word.textContent = run.diagnosis.word;
        const why = run.diagnosis.why ? `: ${run.diagnosis.why} ` : " ";
        line.append(word, why);
      }
      for (const [file, url] of Object.entries(run.files)) {
        const link = document.createElement("a");
        link.href = `${url}?download`;
        link.download = "";
        link.textContent = file;
        line.append(link, " ");
      }
      return line;
    }));
  }

  function load({load}) {
    const last = [...points.values()].sort((one, other) => one[0] - other[0]).pop();
    const running = load.state === "running" || load.state === "spawning";
    write(byId("load-state"), running ? `${load.users} users, ${load.state}` : `no load (${load.state})`);
    const [, successes, failures, p50, p99, max] = running && last ? last : [0, null, null, null, null, null];
    write(byId("p50"), Charts.ms(p50));
    write(byId("p99"), Charts.ms(p99));
    write(byId("max"), Charts.ms(max));
    write(byId("ops"), successes === null ? "-" : `${count(successes)}/s`);
    write(byId("fails"), failures === null ? "-" : `${count(failures)}/s`);
    byId("fails").classList.toggle("bad", failures > 0);
  }

  function draw() {
    if (latest === null || document.hidden) return;
    const begins = latest.timeline.flatMap(row => row.spans.slice(0, 1).map(span => span[0]));
    const longest = byId("latency").clientWidth < 600 ? 60 : 120;
    const to = latest.at, from = to - Math.min(longest, Math.max(20, to - Math.min(to, ...begins)));
    const shown = [...points.values()].filter(point => point[0] >= from).sort((one, other) => one[0] - other[0]);
    const none = Charts.leaderless(latest.timeline);
    Charts.latency(byId("latency"), shown, none, from, to);
    Charts.rate(byId("rate"), shown, none, from, to);
    Charts.timeline(byId("timeline"), latest.timeline, none, from, to);
  }

  function item(text) {
    const made = document.createElement("li");
    made.textContent = text;
    return made;
  }

  function count(number) {
    return number === null ? "-" : number.toLocaleString("en");
  }

  function bytes(size) {
    if (size === null) return "-";
    return size < 2 ** 20 ? `${(size / 1024).toFixed(0)} KiB` : `${(size / 2 ** 20).toFixed(1)} MiB`;
  }

  byId("heal-all").dataset.fault = "heal";
  byId("heal-all").addEventListener("click", event => press(event.currentTarget));
  addEventListener("resize", draw);
  document.addEventListener("visibilitychange", draw);
  const source = new EventSource(meta("events"));
  source.onmessage = message => show(JSON.parse(message.data));
  source.onerror = () => { byId("lost").hidden = false; };
  addEventListener("pagehide", () => source.close());
})();
