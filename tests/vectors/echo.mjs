// Makes echo.json: what Laravel Echo, over pusher-js, does in the scenes below, to check our own Echo against.
//
//   node tests/vectors/echo.mjs .node/pusher_js > tests/vectors/echo.json
//
// Nothing is connected: what the server sends is handed to pusher-js's channels, and what Echo asks of pusher-js is
// written down. The steps of a scene are [variable or null, object, method, ...arguments], where "@x" stands for a
// callback of that name, and ["receive", channel, event, data]. What happens at a step is a list of
// ["subscribe", channel], ["unsubscribe", channel], ["send", channel, event, data], ["call", callback, ...arguments].
// Of the arguments, what pusher-js adds behind the data is left out.
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const directory = resolve(process.argv[2]);
const require = createRequire(`${directory}/`);
const Pusher = require("pusher-js");
const module = pathToFileURL(`${directory}/node_modules/laravel-echo/dist/echo.js`);
const { default: Echo, EventFormatter } = await import(module);
const { version } = require(`${directory}/node_modules/laravel-echo/package.json`);

const NAMESPACES = ["App.Events", "App\\Events", "Shop", false, ""];
const EVENTS = [
  "OrderShipped", "Admin.OrderShipped", "Admin\\OrderShipped", ".order.shipped", ".PostUpdated", "..dot", "\\Other\\Event",
  "\\.x", ".client-typing", "order.shipped", "", ".", ".Illuminate\\Notifications\\Events\\BroadcastNotificationCreated",
];

const confirm = (channel, data = {}) => ["receive", channel, "pusher_internal:subscription_succeeded", data];
const presence = (members) => ({
  presence: { count: Object.keys(members).length, ids: Object.keys(members), hash: members },
});
const WIRE_NAMES = [
  "App\\Events\\OrderShipped", "App\\Events\\Admin\\OrderShipped", "order.shipped", "OrderShipped", "App\\Other",
  "client-typing", "pusher:cache_miss", "Shop\\Sold",
];
const receiveAll = (channel) => WIRE_NAMES.map((event) => ["receive", channel, event, { name: event }]);
const toAll = (namespace) => ({
  namespace,
  steps: [["a", "echo", "channel", "x"], confirm("x"), [null, "a", "listenToAll", "@all"], ...receiveAll("x")],
});

const SCENES = {
  "events of a class, and names as they are": {
    steps: [
      ["a", "echo", "private", "orders.1"],
      [null, "a", "listen", "OrderShipped", "@class"],
      [null, "a", "listen", "Admin.OrderShipped", "@nested"],
      [null, "a", "listen", ".order.shipped", "@dot"],
      [null, "a", "listen", "\\App\\Other", "@backslash"],
      [null, "a", "listen", ".App\\Events\\OrderShipped", "@whole"],
      confirm("private-orders.1"),
      ...receiveAll("private-orders.1"),
    ],
  },
  "no namespace": {
    namespace: false,
    steps: [
      ["a", "echo", "channel", "x"],
      [null, "a", "listen", "OrderShipped", "@plain"],
      [null, "a", "listen", "App.Other", "@dots"],
      confirm("x"),
      ...receiveAll("x"),
    ],
  },
  "kinds of data": {
    steps: [
      ["a", "echo", "channel", "x"],
      [null, "a", "listen", ".e", "@e"],
      confirm("x"),
      ...[{ a: 1 }, [1, null], "text", 7, "1", null].map((data) => ["receive", "x", "e", data]),
    ],
  },
  "a channel that is asked for twice is subscribed once": {
    steps: [
      ["a", "echo", "private", "x"],
      ["b", "echo", "private", "x"],
      confirm("private-x"),
      [null, "a", "listen", ".e", "@a"],
      [null, "b", "listen", ".e", "@b"],
      ["receive", "private-x", "e", 1],
    ],
  },
  "one name, four channels": {
    steps: [
      ["a", "echo", "channel", "x"],
      ["b", "echo", "private", "x"],
      ["c", "echo", "encryptedPrivate", "x"],
      ["d", "echo", "join", "x"],
      confirm("x"),
      confirm("private-x"),
      confirm("private-encrypted-x"),
      confirm("presence-x", presence({ 1: { name: "Ann" } })),
      [null, "echo", "leave", "x"],
    ],
  },
  "leaving what is not confirmed yet": {
    steps: [["a", "echo", "private", "x"], [null, "echo", "leave", "x"]],
  },
  "leaving one form by its whole name": {
    steps: [
      ["a", "echo", "channel", "x"],
      ["b", "echo", "private", "x"],
      confirm("x"),
      confirm("private-x"),
      [null, "echo", "leaveChannel", "private-x"],
      [null, "echo", "leaveChannel", "private-x"],
      [null, "echo", "leaveChannel", "y"],
      [null, "echo", "leave", "y"],
    ],
  },
  "leaving all": {
    steps: [
      ["a", "echo", "channel", "x"],
      ["b", "echo", "private", "y"],
      confirm("x"),
      confirm("private-y"),
      [null, "echo", "leaveAllChannels"],
    ],
  },
  "coming again after leaving": {
    steps: [
      ["a", "echo", "channel", "x"],
      [null, "a", "listen", ".e", "@before"],
      confirm("x"),
      [null, "echo", "leave", "x"],
      ["b", "echo", "channel", "x"],
      [null, "b", "listen", ".e", "@after"],
      confirm("x"),
      ["receive", "x", "e", 1],
    ],
  },
  "a channel to listen to at once": {
    steps: [["a", "echo", "listen", "x", "OrderShipped", "@e"], confirm("x"), ["receive", "x", "App\\Events\\OrderShipped", 1]],
  },
  "stop listening": {
    steps: [
      ["a", "echo", "channel", "x"],
      confirm("x"),
      ...["@a", "@b", "@a", "@c"].map((name) => [null, "a", "listen", "OrderShipped", name]),
      [null, "a", "listen", ".order.shipped", "@dot"],
      ["receive", "x", "App\\Events\\OrderShipped", 1],
      [null, "a", "stopListening", "OrderShipped", "@a"],
      [null, "a", "stopListening", "OrderShipped", "@dot"],
      ["receive", "x", "App\\Events\\OrderShipped", 2],
      [null, "a", "stopListening", "\\App\\Events\\OrderShipped"],
      ["receive", "x", "App\\Events\\OrderShipped", 3],
      ["receive", "x", "order.shipped", 4],
      [null, "a", "stopListening", "Unheard"],
    ],
  },
  "listen to all": toAll("App.Events"),
  "listen to all, another namespace": toAll("Shop"),
  "listen to all, no namespace": toAll(false),
  "listen to all, an empty namespace": toAll(""),
  "listen to all, a namespace that begins like ours": {
    steps: [
      ["a", "echo", "channel", "x"],
      confirm("x"),
      [null, "a", "listenToAll", "@all"],
      ["receive", "x", "App\\EventsOfOld\\Sold", 1],
    ],
  },
  "stop listening to all": {
    steps: [
      ["a", "echo", "channel", "x"],
      confirm("x"),
      [null, "a", "listenToAll", "@allA"],
      [null, "a", "listenToAll", "@allB"],
      [null, "a", "listen", ".e", "@e"],
      ["receive", "x", "e", 1],
      [null, "a", "stopListeningToAll"],
      ["receive", "x", "e", 2],
    ],
  },
  "stop listening to all, by one callback": {
    steps: [
      ["a", "echo", "channel", "x"],
      confirm("x"),
      [null, "a", "listenToAll", "@allA"],
      [null, "a", "listenToAll", "@allB"],
      [null, "a", "stopListeningToAll", "@allA"],
      ["receive", "x", "e", 1],
    ],
  },
  "whispers": {
    steps: [
      ["a", "echo", "private", "x"],
      confirm("private-x"),
      [null, "a", "listenForWhisper", "typing", "@typing"],
      [null, "a", "listenForWhisper", "typing", "@other"],
      [null, "a", "listen", ".client-typing", "@listening"],
      ["receive", "private-x", "client-typing", { on: true }],
      [null, "a", "whisper", "typing", { on: false }],
      [null, "a", "whisper", "client-typing", [1]],
      [null, "a", "stopListeningForWhisper", "typing", "@other"],
      ["receive", "private-x", "client-typing", 2],
      [null, "a", "stopListeningForWhisper", "typing"],
      ["receive", "private-x", "client-typing", 3],
    ],
  },
  "notifications": {
    steps: [
      ["a", "echo", "private", "App.Models.User.1"],
      confirm("private-App.Models.User.1"),
      [null, "a", "notification", "@a"],
      [null, "a", "notification", "@b"],
      ...[1, 2].flatMap((id) => [
        ["receive", "private-App.Models.User.1", "Illuminate\\Notifications\\Events\\BroadcastNotificationCreated", { id }],
        [null, "a", "stopListeningForNotification", "@a"],
      ]),
    ],
  },
  "events of a model": {
    steps: [
      ["a", "echo", "private", "App.Models.Post.7"],
      [null, "a", "listen", ".PostUpdated", "@updated"],
      confirm("private-App.Models.Post.7"),
      ["receive", "private-App.Models.Post.7", "PostUpdated", { model: { id: 7 } }],
    ],
  },
  "subscribed": {
    steps: [
      ["a", "echo", "channel", "x"],
      [null, "a", "subscribed", "@a"],
      confirm("x"),
    ],
  },
  "who is here, who comes and who leaves": {
    steps: [
      ["a", "echo", "join", "room.1"],
      [null, "a", "here", "@here"],
      [null, "a", "subscribed", "@subscribed"],
      [null, "a", "joining", "@joining"],
      [null, "a", "leaving", "@leaving"],
      [null, "a", "listenToAll", "@all"],
      confirm("presence-room.1", presence({ 1: { name: "Ann" }, 2: { name: "Bob" } })),
      ["receive", "presence-room.1", "pusher_internal:member_added", { user_id: "3", user_info: { name: "Cy" } }],
      ["receive", "presence-room.1", "pusher_internal:member_removed", { user_id: "2" }],
      [null, "a", "whisper", "typing", {}],
      [null, "echo", "leave", "room.1"],
    ],
  },
  "a refusal": {
    steps: [
      ["a", "echo", "private", "x"],
      [null, "a", "error", "@error"],
      ["receive", "private-x", "pusher:subscription_error", { type: "AuthError", error: "refused", status: 403 }],
    ],
  },
};

function play({ namespace = "App.Events", steps }) {
  let happened = [];
  const pusher = new Pusher("key", { cluster: "", enabledTransports: ["none"] });
  const { subscribe, unsubscribe } = pusher;
  pusher.subscribe = (name) => {
    happened.push(["subscribe", name]);
    const channel = subscribe.call(pusher, name);
    channel.trigger = (event, data) => happened.push(["send", name, event, data]);
    return channel;
  };
  pusher.unsubscribe = (name) => {
    happened.push(["unsubscribe", name]);
    unsubscribe.call(pusher, name);
  };
  const echo = new Echo({ broadcaster: "reverb", key: "key", client: pusher, namespace });
  const callbacks = {};
  const meant = (argument) => {
    if (typeof argument !== "string" || !argument.startsWith("@")) return argument;
    const name = argument.slice(1);
    return (callbacks[name] ??= (...values) => happened.push(["call", name, ...values.slice(0, name.startsWith("all") ? 2 : 1)]));
  };
  const variables = { echo };
  const played = steps.map((step) => {
    happened = [];
    if (step[0] === "receive") {
      const [, channel, event, data] = step;
      pusher.channel(channel).handleEvent({ event, channel, data: structuredClone(data) }); // it keeps and changes them
    } else {
      const [variable, object, method, ...values] = step;
      const result = variables[object][method](...values.map(meant));
      if (variable !== null) variables[variable] = result;
    }
    return { step, happened };
  });
  pusher.disconnect();
  return { namespace, played };
}

function status(state) {
  const echo = new Echo({ broadcaster: "reverb", key: "key", client: { connection: { state, socket_id: "1.1" } } });
  return echo.connectionStatus();
}

const STATES = ["initialized", "connecting", "connected", "unavailable", "disconnected", "failed"];
const { version: pusherVersion } = require(`${directory}/node_modules/pusher-js/package.json`);
const lines = (values) => values.map((value) => JSON.stringify(value)).join(",\n");
const scenes = Object.entries(SCENES).map(([name, scene]) => {
  const { namespace, played } = play(scene);
  return `${JSON.stringify(name)}: {"namespace": ${JSON.stringify(namespace)}, "played": [\n${lines(played)}]}`;
});
const names = NAMESPACES.map((namespace) => ({
  namespace,
  names: Object.fromEntries(EVENTS.map((event) => [event, new EventFormatter(namespace).format(event)])),
}));
console.log(`{
"made_by": "laravel-echo ${version}, pusher-js ${pusherVersion}",
"statuses": ${JSON.stringify(Object.fromEntries(STATES.map((state) => [state, status(state)])))},
"names": [\n${lines(names)}],
"scenes": {\n${scenes.join(",\n")}}
}`);
process.exit(0);
