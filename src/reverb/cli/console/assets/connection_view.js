// The connection of the console to the server: its details, its history, and the results of the doctor.

import { html } from "./vendor.js";
import { runDoctor } from "./actions.js";
import { Icon } from "./icons.js";
import { log, state } from "./state.js";
import { clock, duration, plural, visible } from "./text.js";

export function ConnectionView() {
  const { hello, connection } = state;
  return html`<div class="view connection-view">
    ${hello &&
    html`<dl class="details">
      <dt>Server</dt><dd>${visible(hello.server)}</dd>
      <dt>Application</dt><dd>${visible(hello.application ?? "–")}</dd>
      <dt>State</dt><dd>${connection.state}</dd>
      <dt>Socket id</dt><dd>${visible(connection.socketId ?? "–")}</dd>
      <dt>Round trip</dt><dd>${connection.roundTrip == null ? "–" : duration(connection.roundTrip)}</dd>
      <dt>Console</dt><dd>python-reverb ${visible(hello.version)}</dd>
    </dl>`}
    ${connection.problem && html`<p class="problem">${visible(connection.problem)}</p>`}
    <${Doctor} />
    <${Changes} />
  </div>`;
}

function Doctor() {
  const { isRunning, findings, problem, time } = state.doctor;
  return html`<section class="doctor" aria-labelledby="doctor-title">
    <div class="head">
      <h4 id="doctor-title">Doctor</h4>
      <button id="run-doctor" class="primary" disabled=${isRunning} onClick=${runDoctor}>${isRunning ? "Running …" : "Run the doctor"}</button>
    </div>
    ${time === null && html`<p class="hint">Checks the settings, the connection and the server step by step, and says what to change.</p>`}
    <ol aria-live="polite">${findings.map((finding) => html`<${Finding} finding=${finding} />`)}</ol>
    ${problem && html`<p class="problem">${visible(problem)}</p>`}
  </section>`;
}

function Finding({ finding: { step, ok, seconds, detail, causes = [], settings = [] } }) {
  const [icon, word] = ok === null ? ["skip", "skipped"] : ok ? ["check", "fine"] : ["fail", "failed"];
  return html`<li class=${word}>
    <${Icon} name=${icon} /><b><span class="sr">${word}: </span>${visible(step)}</b>
    <span class="seconds">${duration(seconds)}</span>
    <div class="detail">${visible(detail)}</div>
    ${settings.length > 0 && html`<details><summary>Show the settings, and where each one comes from</summary><${Settings} rows=${settings} /></details>`}
    ${causes.length > 0 && html`<ul class="causes">${causes.map((cause) => html`<li>${visible(cause)}</li>`)}</ul>`}
  </li>`;
}

function Settings({ rows }) {
  return html`<dl>${rows.map(({ variable, value, source }) => html`<dt>${visible(variable)}</dt>
    <dd>${visible(value ?? "not set")} <span class="hint">${visible(source)}</span></dd>`)}</dl>`;
}

function Changes() {
  const changes = [...state.changes, ...log.gaps].sort((one, other) => other.time - one.time);
  return html`<section class="changes" aria-labelledby="changes-title">
    <h4 id="changes-title">History</h4>
    <ol>${changes.map((change) => html`<li><time>${clock(change.time)}</time><span>${describe(change)}</span></li>`)}</ol>
  </section>`;
}

function describe({ state: name, problem, channels, downtime }) {
  if (channels) return `Gap of ${duration(downtime)} on ${channels.length === 1 ? visible(channels[0]) : plural(channels.length, "channel")}`;
  return problem ? `${name}: ${visible(problem)}` : name;
}
