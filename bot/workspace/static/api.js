// Talks to the local JSON API, and listens to what the current person sees.

async function read(response) {
  try {
    return await response.json();
  } catch {
    return { ok: false, error: `HTTP ${response.status}` };
  }
}

export async function post(path, body) {
  try {
    const response = await fetch(`/local/${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    return await read(response);
  } catch {
    return { ok: false, error: "workspace_unreachable" };
  }
}

export async function get(path, query = {}) {
  const response = await fetch(`/local/${path}?${new URLSearchParams(query)}`);
  return read(response);
}

export function listen(user, { onEffect, onUp, onDown }) {
  let socket = null;
  let pause = 300;
  let over = false;
  const open = () => {
    socket = new WebSocket(`ws://${location.host}/local/live?as=${encodeURIComponent(user)}`);
    socket.onopen = () => {
      pause = 300;
      onUp();
    };
    socket.onmessage = (event) => onEffect(JSON.parse(event.data));
    socket.onclose = () => {
      if (over) return;
      onDown();
      setTimeout(() => over || open(), pause);
      pause = Math.min(pause * 2, 5000);
    };
  };
  open();
  return {
    stop() {
      over = true;
      socket.close();
    },
    tell(body) {
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(body));
    },
  };
}

const SAID = {
  operation_timeout: "The app did not answer in time.",
  app_not_connected: "The app is not connected.",
  no_such_button: "This button is not there any more.",
  no_such_command: "There is no such command here.",
  commands_not_in_threads: "Slash commands cannot be used in threads.",
  workspace_unreachable: "The workspace is not running.",
  account_inactive: "This account is deactivated.",
  invalid_view_response: "The app answered with something Slack would refuse.",
  invalid_command_response: "The app answered with something Slack would refuse.",
  already_in_channel: "Already in this channel.",
  user_not_found: "Nobody here has that name.",
};

export const said = (error) => SAID[error] || `Something went wrong: ${error}`;
