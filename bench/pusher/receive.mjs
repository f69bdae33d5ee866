// The worker for pusher-js: the same talk over stdin and stdout as that of bench/worker.py.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

// The package is installed in the directory that is given.
const require = createRequire(process.argv[2] + "/");
const Pusher = require("pusher-js");

const tell = (answer) => process.stdout.write(JSON.stringify(answer) + "\n");

const receive = ({ host, port, appKey, channels, events, messages }) =>
  new Promise((resolve, reject) => {
    const pusher = new Pusher(appKey, {
      cluster: "",
      wsHost: host,
      wsPort: port,
      forceTLS: false,
      enabledTransports: ["ws"],
      enableStats: false,
    });
    pusher.connection.bind("error", (error) => reject(new Error(JSON.stringify(error))));
    const ids = [];
    let started;
    const channel = pusher.subscribe(channels[0]);
    const handle = (data) => {
      ids.push(data.id);
      if (ids.length === messages) {
        const { user, system } = process.cpuUsage(started);
        tell({ cpu: (user + system) / 1e6 });
        pusher.disconnect();
        resolve({ in_order: ids.every((id, index) => id === index) });
      }
    };
    for (const event of events) channel.bind(event, handle);
    channel.bind("pusher:subscription_succeeded", () => {
      started = process.cpuUsage();
      tell({ ready: true });
    });
  });

for await (const line of createInterface({ input: process.stdin })) {
  const { do: task, ...job } = JSON.parse(line);
  try {
    tell(task === "version" ? { version: Pusher.VERSION, node: process.version } : await receive(job));
  } catch (error) {
    tell({ error: String(error) });
  }
}
