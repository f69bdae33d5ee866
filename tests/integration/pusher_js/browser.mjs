// What browsers run, on Node: pusher-js, or Laravel Echo over it. Takes commands from stdin and tells on stdout what
// happens, as JSON, an object a line. Its arguments: the directory with node_modules, and the settings.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [, , directory, settings] = process.argv;
const { key, host, port, auth, headers } = JSON.parse(settings);
const require = createRequire(`${directory}/`);
const Pusher = require("pusher-js");

const tell = (channel, event, data, more) => console.log(JSON.stringify({ channel, event, data, ...more }));
const pusher = new Pusher(key, {
  cluster: "",
  wsHost: host,
  wsPort: port,
  forceTLS: false,
  enabledTransports: ["ws"],
  channelAuthorization: { endpoint: auth, headers },
  userAuthentication: { endpoint: auth.replace("auth", "user-auth"), headers },
});
pusher.connection.bind("error", (error) => tell(null, "error", error?.error?.data ?? null));
pusher.connection.bind("connected", () => tell(null, "connected", null));

const { default: Echo } = await import(pathToFileURL(`${directory}/node_modules/laravel-echo/dist/echo.js`));
const echo = new Echo({ broadcaster: "reverb", key, client: pusher });

const commands = {
  subscribe({ channel, events }) {
    const subscribed = pusher.subscribe(channel);
    subscribed.bind("pusher:subscription_succeeded", (data) =>
      tell(channel, "pusher:subscription_succeeded", { me: data?.me, members: data?.members }),
    );
    for (const event of events) {
      subscribed.bind(event, (data, metadata) => tell(channel, event, data, { user_id: metadata?.user_id }));
    }
  },
  trigger: ({ channel, event, data }) => pusher.channel(channel).trigger(event, data),
  unsubscribe: ({ channel }) => pusher.unsubscribe(channel),
  signin() {
    pusher.bind("pusher:signin_success", ({ user_data }) => tell(null, "signed in", JSON.parse(user_data)));
    pusher.user.bind_global((event, data) => tell("user", event, data));
    pusher.signin();
  },
  join({ channel, events }) {
    const room = echo.join(channel);
    room.here((users) => tell(channel, "here", users));
    room.joining((user) => tell(channel, "joining", user));
    room.leaving((user) => tell(channel, "leaving", user));
    room.listenForWhisper("typing", (data) => tell(channel, "typing", data));
    for (const event of events) room.listen(event, (data) => tell(channel, event, data));
  },
  whisper: ({ channel, event, data }) => echo.join(channel).whisper(event, data),
  encrypted: ({ channel, event }) =>
    echo
      .encryptedPrivate(channel)
      .subscribed(() => tell(channel, "subscribed", null))
      .listen(event, (data) => tell(channel, event, data)),
};

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const command = JSON.parse(line);
    commands[command.do](command);
  })
  .on("close", () => process.exit(0));
