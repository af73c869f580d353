// What the page knows.

export const state = {
  me: null,
  users: new Map(),
  groups: [],
  channels: [],
  app: null,
  guide: null,
  terminal: { token: "", psql: false },
  channel: null,
  messages: new Map(),
  thread: null,
  replies: new Map(),
  views: [],
  home: null,
  tab: "messages",
  actions: {},
};

export const currentChannel = () => state.channels.find((channel) => channel.id === state.channel);

export function nameOf(user) {
  if (user === state.app.user) return state.app.display_name;
  if (user === "USLACKBOT") return "Workspace";
  const person = state.users.get(user);
  return person ? person.name : user;
}
