// Makes subscribing.json: what pusher-js does in the scenes below, to check our own client against.
//
//   node tests/vectors/subscribing.mjs .node/pusher_js > tests/vectors/subscribing.json
//
// The server is a script: pusher-js gets a WebSocket that leads to the scene itself. The steps of a scene are
//
//   ["connect"] (always the first), ["disconnect"], ["subscribe", channel], ["unsubscribe", channel],
//   ["bind", channel or null, event or "*", "@handler"], ["unbind", channel or null, event or null, "@handler" or null],
//   ["confirm", channel], ["refuse", channel], ["send", channel, event, data]   (by the server)
//   ["drop"]   (the server ends the connection, and takes the next one)
//
// A handler writes down that it was called, and takes the steps that the scene has for it in "handlers". Of a scene is
// kept what went over the wire at each step, "<" from the server and ">" from the client, and the calls: [handler, data], and in
// scenes with "states" also ["state", previous, current], but for the first, which nobody could be told of. Where our client differs on purpose, "ours" says how and why.
import { createRequire } from "node:module";
import { resolve } from "node:path";

const directory = resolve(process.argv[2]);
const require = createRequire(`${directory}/`);
const Pusher = require("pusher-js");
const { version } = require(`${directory}/node_modules/pusher-js/package.json`);

const subscribed = (channel) => [["subscribe", channel], ["confirm", channel]];

const SCENES = {
  "a life": {
    states: true,
    steps: [["connect"], ...subscribed("x"), ["bind", "x", "e", "@a"], ["send", "x", "e", 1], ["unsubscribe", "x"], ["disconnect"]],
  },
  "a channel that is asked for twice": {
    steps: [["connect"], ["subscribe", "x"], ["subscribe", "x"], ["confirm", "x"], ["subscribe", "x"]],
  },
  "a channel that was left is a new one, without handlers": {
    steps: [
      ["connect"], ...subscribed("x"), ["bind", "x", "e", "@a"], ["send", "x", "e", 1],
      ["unsubscribe", "x"], ...subscribed("x"), ["bind", "x", "e", "@b"], ["send", "x", "e", 2],
    ],
  },
  "what comes behind an unsubscribe": {
    steps: [
      ["connect"], ...subscribed("x"), ["bind", "x", "e", "@channel"], ["bind", null, "e", "@global"],
      ["unsubscribe", "x"], ["send", "x", "e", 1],
    ],
    ours: {
      why: "who has left a channel gets nothing of it any more, whoever handles it",
      calls: [],
    },
  },
  "left before the answer": {
    steps: [["connect"], ["subscribe", "x"], ["unsubscribe", "x"], ["confirm", "x"]],
  },
  "left before the answer, and wanted again": {
    steps: [
      ["connect"], ["subscribe", "x"], ["unsubscribe", "x"], ["subscribe", "x"], ["confirm", "x"], ["confirm", "x"],
      ["bind", "x", "e", "@a"], ["send", "x", "e", 1],
    ],
    ours: {
      why: "who has left and comes back gets another channel; pusher-js gives the same one again",
      wire: [
        [], ["> subscribe x"], [], [], ["< confirm x", "> unsubscribe x", "> subscribe x"], ["< confirm x"], [], ["< e x"],
      ],
    },
  },
  "refused, and asked for again": {
    steps: [["connect"], ["subscribe", "x"], ["refuse", "x"], ...subscribed("x"), ["bind", "x", "e", "@a"], ["send", "x", "e", 1]],
    ours: {
      why: "who asks again is meant; pusher-js takes a refused channel for one whose answer is still to come",
      wire: [[], ["> subscribe x"], ["< refuse x"], ["> subscribe x"], ["< confirm x"], [], ["< e x"]],
    },
  },
  "a reconnect": {
    states: true,
    steps: [
      ["connect"], ...subscribed("x"), ...subscribed("y"), ["bind", "x", "e", "@a"], ["unsubscribe", "y"], ...subscribed("z"),
      ["drop"], ["confirm", "x"], ["confirm", "z"], ["send", "x", "e", 1],
    ],
  },
  "handlers of a channel, global ones, and those of all events": {
    steps: [
      ["connect"], ...subscribed("x"), ["bind", null, "*", "@globalAll"], ["bind", null, "e", "@global"],
      ["bind", "x", "e", "@first"], ["bind", "x", "*", "@all"], ["bind", "x", "e", "@second"], ["bind", "x", "e", "@first"],
      ["send", "x", "e", 1],
    ],
    ours: {
      why: "handlers of a channel are called in the order in which they were bound, those of all events included",
      calls: [["first", 1], ["all", 1], ["second", 1], ["first", 1], ["globalAll", 1], ["global", 1]],
    },
  },
  "bound and unbound while an event is delivered": {
    handlers: { a: [["unbind", "x", "e", "@b"], ["bind", "x", "e", "@d"]] },
    steps: [
      ["connect"], ...subscribed("x"), ["bind", "x", "e", "@a"], ["bind", "x", "e", "@b"], ["bind", "x", "e", "@c"],
      ["send", "x", "e", 1], ["send", "x", "e", 2],
    ],
    ours: {
      why: "a handler is not called any more once unbind() has returned",
      calls: [["a", 1], ["c", 1], ["a", 2], ["c", 2], ["d", 2]],
    },
  },
  "unbound: one handler, an event's, all": {
    steps: [
      ["connect"], ...subscribed("x"), ["bind", "x", "e", "@a"], ["bind", "x", "e", "@b"], ["bind", "x", "f", "@c"], ["bind", "x", "*", "@all"],
      ["unbind", "x", "e", "@a"], ["send", "x", "e", 1], ["unbind", "x", "e", null], ["send", "x", "e", 2], ["send", "x", "f", 3],
    ],
    ours: {
      why: "handlers of a channel are called in the order in which they were bound, those of all events included",
      calls: [["b", 1], ["all", 1], ["all", 2], ["c", 3], ["all", 3]],
    },
  },
};

// Nothing of pusher-js takes more than a few timers without delay.
async function settle() {
  for (let turn = 0; turn < 25; turn += 1) await new Promise((done) => setTimeout(done, 1));
}

async function play({ steps, handlers = {}, states = false }) {
  const played = [];
  let wire = [];
  const calls = [];
  let socket = null;
  Pusher.Runtime.createWebSocket = () => {
    socket = {
      send(text) {
        const { event, data } = JSON.parse(text);
        wire.push(`> ${event.replace("pusher:", "")} ${data.channel}`);
      },
      close() {
        this.onclose?.({ code: 1000, reason: "", wasClean: true });
      },
    };
    return socket;
  };
  const receive = (event, channel, data) => socket.onmessage({ data: JSON.stringify({ event, channel, data }) });
  const accept = async () => {
    while (socket === null) await settle();
    socket.onopen();
    receive("pusher:connection_established", undefined, JSON.stringify({ socket_id: "1.1", activity_timeout: 30 }));
  };

  // It begins to connect by itself: that is the first step.
  const pusher = new Pusher("key", { cluster: "", wsHost: "none", forceTLS: false, enabledTransports: ["ws"] });
  if (states) pusher.connection.bind("state_change", ({ previous, current }) => calls.push(["state", previous, current]));
  const known = {};
  const handler = (argument) => {
    const name = argument?.slice(1);
    if (name === undefined) return undefined;
    return (known[name] ??= (...values) => {
      calls.push([name, values[name.toLowerCase().endsWith("all") ? 1 : 0]]);
      for (const step of handlers[name] ?? []) take(step);
    });
  };
  function take([what, name, event, data]) {
    const target = () => (name === null ? pusher : pusher.channel(name));
    if (what === "disconnect") {
      pusher.disconnect();
    } else if (what === "subscribe") {
      pusher.subscribe(name);
    } else if (what === "unsubscribe") {
      pusher.unsubscribe(name);
    } else if (what === "bind") {
      event === "*" ? target().bind_global(handler(data)) : target().bind(event, handler(data));
    } else if (what === "unbind") {
      target().unbind(event ?? undefined, handler(data ?? undefined));
    } else if (what === "confirm") {
      wire.push(`< confirm ${name}`);
      receive("pusher_internal:subscription_succeeded", name, "{}");
    } else if (what === "refuse") {
      wire.push(`< refuse ${name}`);
      receive("pusher:subscription_error", name, { type: "AuthError", error: "refused", status: 403 });
    } else if (what === "send") {
      wire.push(`< ${event} ${name}`);
      receive(event, name, data);
    } else if (what === "drop") {
      wire.push("< end");
      const lost = socket;
      socket = null;
      lost.onclose({ code: 1006, reason: "", wasClean: false });
    }
  }
  for (const step of steps) {
    wire = [];
    take(step);
    if (step[0] === "connect" || step[0] === "drop") await accept();
    await settle();
    played.push(wire);
  }
  wire = [];
  const called = [...calls];
  pusher.disconnect();
  return { wire: played, calls: called };
}

const scenes = [];
for (const [name, scene] of Object.entries(SCENES)) {
  const { handlers = {}, states = false, ours = null, steps } = scene;
  const rest = Object.entries({ steps, handlers, states, ...(await play(scene)), ours });
  scenes.push(`${JSON.stringify(name)}: {\n${rest.map(([key, value]) => `${JSON.stringify(key)}: ${JSON.stringify(value)}`).join(",\n")}}`);
}
console.log(`{"made_by": "pusher-js ${version}",\n"scenes": {\n${scenes.join(",\n")}}}`);
process.exit(0);
