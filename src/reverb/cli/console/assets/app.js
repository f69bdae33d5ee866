const token = location.hash.slice(1);
history.replaceState(null, "", "/");
if (token) await fetch("/session", {method: "POST", body: JSON.stringify({token})});
const socket = new WebSocket(`ws://${location.host}/ws`);
socket.onmessage = (message) => (document.getElementById("out").textContent += message.data + "\n");
