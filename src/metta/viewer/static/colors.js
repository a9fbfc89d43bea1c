// Colours by meaning. Those of the page itself live in style.css; items, kinds and agents have theirs here.

const HUES = {
  red: "#e5534b", blue: "#4a8df0", green: "#3fae5a", yellow: "#e0b13c", purple: "#9a6bea", gray: "#8b94a3",
};

const ITEM_COLORS = { heart: "#f0487f", armor: "#8fa6bf", laser: "#b37bf2", blueprint: "#35b8c9" };

const KIND_COLORS = {
  altar: "#f0487f", armory: "#8fa6bf", lasery: "#b37bf2", lab: "#35b8c9", factory: "#d98a3d", temple: "#d8b24a",
  converter: "#8b94a3", block: "#b9854f", wall: "#59616f",
};

const AGENT_COLORS = [
  "#f0a33a", "#49b6e8", "#8fce4c", "#e879c0", "#a98bf5", "#f2e05a", "#4fd1b0", "#f47c62",
  "#7f9cf5", "#c8a27a", "#b8e986", "#e25d8f",
];

/** A colour as #rrggbb from hue in degrees, saturation and lightness in 0..1. */
function hsl(hue, saturation, lightness) {
  const channel = (shift) => {
    const k = (shift + hue / 30) % 12;
    const value = lightness - saturation * Math.min(lightness, 1 - lightness) * Math.max(-1, Math.min(k - 3, 9 - k, 1));
    return Math.round(value * 255).toString(16).padStart(2, "0");
  };
  return `#${channel(0)}${channel(8)}${channel(4)}`;
}

/** A colour #rrggbb moved towards white (amount > 0) or black (amount < 0). */
function tint(color, amount) {
  const target = amount > 0 ? 255 : 0;
  const channels = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  return `#${channels.map((value) => Math.round(value + (target - value) * Math.abs(amount)).toString(16).padStart(2, "0")).join("")}`;
}

/** A steady colour for a name that no table knows. */
function colorFromName(name) {
  let hash = 0;
  for (const letter of name) hash = (hash * 31 + letter.charCodeAt(0)) % 360;
  return hsl(hash, 0.55, 0.58);
}

/** The colour of an item or of a kind of object: its own, that of the hue in its name, or a steady one. */
function colorOf(name, table) {
  if (name in table) return table[name];
  const hue = name.split("_").pop();
  return HUES[hue] || table[name.split("_")[0]] || colorFromName(name);
}

const itemColor = (name) => colorOf(name, ITEM_COLORS);
const kindColor = (name) => colorOf(name, KIND_COLORS);

function agentColor(agentId) {
  if (agentId < AGENT_COLORS.length) return AGENT_COLORS[agentId];
  return hsl((agentId * 137.508) % 360, 0.7, agentId % 2 ? 0.58 : 0.68);
}

const groupColor = (groupId) => ["#ffffff", "#ff5d5d", "#5da8ff", "#5dff9b", "#ffe45d"][groupId] || colorFromName(`${groupId}`);

/** The page's colours as the canvas needs them; read again when the theme changes. */
function readTheme() {
  const style = getComputedStyle(document.documentElement);
  const names = ["floor", "floor-2", "void", "wall", "wall-top", "wall-edge", "ink", "text", "muted", "line", "accent",
    "good", "bad", "ice", "panel"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}
