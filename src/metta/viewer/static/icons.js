// Drawings. Each paints into a unit square whose middle is (0, 0); the caller moves and scales the canvas.

const INK = "#14171c";

function shape(ctx, fill, points, close = true) {
  ctx.beginPath();
  points.forEach(([x, y], index) => (index ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
  if (close) ctx.closePath();
  if (fill) {
    ctx.fillStyle = fill;
    ctx.fill();
  }
  ctx.stroke();
}

function box(ctx, fill, x, y, width, height, radius) {
  ctx.beginPath();
  ctx.roundRect(x, y, width, height, radius);
  ctx.fillStyle = fill;
  ctx.fill();
  ctx.stroke();
}

function disc(ctx, fill, x, y, radius, outlined = true) {
  ctx.beginPath();
  ctx.arc(x, y, radius, 0, 2 * Math.PI);
  ctx.fillStyle = fill;
  ctx.fill();
  if (outlined) ctx.stroke();
}

function line(ctx, points) {
  shape(ctx, null, points, false);
}

/** Text around (x, y), `size` high. Drawn large and scaled down: browsers place tiny fonts badly. */
function letters(ctx, text, x, y, size, weight = 700) {
  ctx.save();
  ctx.translate(x, y);
  ctx.scale(size / 20, size / 20);
  ctx.font = `${weight} 20px system-ui, sans-serif`;
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  ctx.fillText(text, 0, 0);
  ctx.restore();
}

function heartPath(ctx, x, y, size) {
  ctx.beginPath();
  ctx.moveTo(x, y + size * 0.45);
  ctx.bezierCurveTo(x - size * 0.75, y - size * 0.05, x - size * 0.45, y - size * 0.6, x, y - size * 0.2);
  ctx.bezierCurveTo(x + size * 0.45, y - size * 0.6, x + size * 0.75, y - size * 0.05, x, y + size * 0.45);
  ctx.closePath();
}

const bolt = (x, y, size) => [[0.08, -0.5], [-0.3, 0.08], [-0.03, 0.08], [-0.1, 0.5], [0.3, -0.12], [0.03, -0.12]]
  .map(([dx, dy]) => [x + dx * size, y + dy * size]);

const ITEM_DRAWINGS = {
  ore(ctx, color) {
    shape(ctx, color, [[-0.42, 0.2], [-0.3, -0.25], [0.05, -0.42], [0.38, -0.18], [0.42, 0.22], [0.1, 0.4], [-0.25, 0.38]]);
    shape(ctx, tint(color, 0.35), [[-0.3, -0.25], [0.05, -0.42], [0.1, -0.08], [-0.15, 0.02]]);
  },
  battery(ctx, color) {
    box(ctx, tint(color, 0.2), -0.12, -0.46, 0.24, 0.16, 0.04);
    box(ctx, color, -0.26, -0.34, 0.52, 0.8, 0.1);
    ctx.fillStyle = "#fff";
    ctx.beginPath();
    bolt(0, 0.06, 0.52).forEach(([x, y], index) => (index ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
    ctx.fill();
  },
  heart(ctx, color) {
    heartPath(ctx, 0, 0.06, 0.9);
    ctx.fillStyle = color;
    ctx.fill();
    ctx.stroke();
    disc(ctx, "rgba(255,255,255,.75)", -0.18, -0.12, 0.08, false);
  },
  armor(ctx, color) {
    shape(ctx, color, [[0, -0.44], [0.38, -0.3], [0.32, 0.14], [0, 0.46], [-0.32, 0.14], [-0.38, -0.3]]);
  },
  laser(ctx, color) {
    shape(ctx, color, [[-0.42, -0.2], [0.3, -0.2], [0.42, -0.1], [0.3, 0.02], [-0.1, 0.02], [-0.16, 0.4], [-0.38, 0.4]]);
  },
  blueprint(ctx, color) {
    box(ctx, color, -0.36, -0.4, 0.72, 0.8, 0.05);
    ctx.save();
    ctx.strokeStyle = "#fff";
    line(ctx, [[-0.2, -0.12], [0.2, -0.12]]);
    line(ctx, [[-0.2, 0.12], [0.1, 0.12]]);
    ctx.restore();
  },
};

/** An item of the given name, `size` wide, around (x, y) in the caller's units. */
function drawItem(ctx, name, x, y, size) {
  const drawing = ITEM_DRAWINGS[familyOf(name)];
  const color = itemColor(name);
  ctx.save();
  ctx.translate(x, y);
  ctx.scale(size, size);
  ctx.lineWidth = 0.09;
  ctx.lineJoin = ctx.lineCap = "round";
  ctx.strokeStyle = INK;
  if (drawing) drawing(ctx, color);
  else shape(ctx, color, [[0, -0.42], [0.42, 0], [0, 0.42], [-0.42, 0]]);
  ctx.restore();
}

function stone(ctx, color) {
  box(ctx, color, -0.4, 0.22, 0.8, 0.2, 0.06);
  box(ctx, tint(color, 0.15), -0.28, 0.06, 0.56, 0.18, 0.05);
}

const KIND_DRAWINGS = {
  mine(ctx, color) {
    shape(ctx, tint(color, -0.3), [[-0.47, 0.42], [-0.42, 0.06], [-0.24, -0.26], [0.04, -0.42], [0.3, -0.22], [0.44, 0.1], [0.47, 0.42]]);
    shape(ctx, tint(color, 0.1), [[-0.24, -0.26], [0.04, -0.42], [0.1, -0.18], [-0.1, -0.08]]);
    shape(ctx, color, [[0.1, -0.18], [0.04, -0.42], [0.3, -0.22], [0.44, 0.1], [0.26, 0]]);
    ctx.fillStyle = "#17191e";
    ctx.fillRect(-0.17, 0.1, 0.34, 0.32);
    box(ctx, "#c79a62", -0.24, 0.08, 0.1, 0.34, 0.02);
    box(ctx, "#c79a62", 0.14, 0.08, 0.1, 0.34, 0.02);
    box(ctx, "#dcb47e", -0.3, -0.02, 0.6, 0.12, 0.03);
  },
  generator(ctx, color, look) {
    box(ctx, "#aab2bf", -0.3, -0.44, 0.16, 0.2, 0.04);
    box(ctx, "#aab2bf", 0.14, -0.44, 0.16, 0.2, 0.04);
    box(ctx, color, -0.42, -0.3, 0.84, 0.72, 0.1);
    box(ctx, look.busy ? "#fff6d6" : tint(color, -0.55), -0.28, -0.18, 0.56, 0.48, 0.08);
    shape(ctx, look.busy ? "#ffc53d" : tint(color, 0.45), bolt(0, 0.06, 0.42));
  },
  altar(ctx, color, look) {
    stone(ctx, "#9a93a6");
    if (look.busy || look.stocked) disc(ctx, "rgba(255,120,170,.35)", 0, -0.18, 0.32, false);
    heartPath(ctx, 0, -0.14, 0.5);
    ctx.fillStyle = look.stocked || look.busy ? color : tint(color, -0.45);
    ctx.fill();
    ctx.stroke();
  },
  armory(ctx, color) {
    stone(ctx, "#7d8794");
    ctx.save();
    ctx.translate(0, -0.14);
    ctx.scale(0.68, 0.68);
    ITEM_DRAWINGS.armor(ctx, color);
    ctx.restore();
  },
  lasery(ctx, color) {
    stone(ctx, "#7a7191");
    shape(ctx, color, [[0, -0.46], [0.2, -0.2], [0.1, 0.06], [-0.1, 0.06], [-0.2, -0.2]]);
    line(ctx, [[-0.2, -0.2], [0.2, -0.2]]);
  },
  lab(ctx, color) {
    shape(ctx, "#e6edf2", [[-0.12, -0.44], [-0.12, -0.14], [-0.38, 0.36], [-0.3, 0.44], [0.3, 0.44], [0.38, 0.36], [0.12, -0.14], [0.12, -0.44]]);
    shape(ctx, color, [[-0.22, 0.06], [-0.36, 0.36], [-0.3, 0.42], [0.3, 0.42], [0.36, 0.36], [0.22, 0.06]]);
  },
  factory(ctx, color) {
    box(ctx, "#8b7a6d", 0.2, -0.46, 0.16, 0.5, 0.03);
    shape(ctx, color, [[-0.44, 0.42], [-0.44, -0.14], [-0.16, 0.04], [-0.16, -0.14], [0.12, 0.04], [0.12, -0.14], [0.44, 0.04], [0.44, 0.42]]);
    box(ctx, "#2a2018", -0.08, 0.2, 0.2, 0.22, 0.03);
  },
  temple(ctx, color) {
    box(ctx, tint(color, -0.15), -0.42, 0.28, 0.84, 0.14, 0.03);
    for (const x of [-0.3, -0.07, 0.16]) box(ctx, tint(color, 0.4), x, -0.12, 0.14, 0.4, 0.03);
    shape(ctx, color, [[-0.46, -0.12], [0, -0.44], [0.46, -0.12]]);
  },
  converter(ctx, color) {
    const points = [];
    for (let tooth = 0; tooth < 8; tooth++) {
      for (const [turn, radius] of [[-0.32, 0.34], [-0.2, 0.46], [0.2, 0.46], [0.32, 0.34]]) {
        const angle = tooth * (Math.PI / 4) + turn;
        points.push([Math.cos(angle) * radius, Math.sin(angle) * radius]);
      }
    }
    shape(ctx, color, points);
    disc(ctx, tint(color, -0.6), 0, 0, 0.14);
  },
  block(ctx, color) {
    box(ctx, color, -0.4, -0.4, 0.8, 0.8, 0.07);
    ctx.save();
    ctx.lineWidth *= 0.8;
    line(ctx, [[-0.26, -0.4], [-0.26, 0.4]]);
    line(ctx, [[0.26, -0.4], [0.26, 0.4]]);
    shape(ctx, tint(color, 0.25), [[-0.26, 0.24], [-0.26, 0.36], [0.26, -0.22], [0.26, -0.36]]);
    ctx.restore();
  },
};

/** An object that is neither wall nor agent, in the unit square. `look`: {busy, stocked, letter}. */
function drawKind(ctx, type, look) {
  ctx.lineWidth = 0.05;
  ctx.lineJoin = ctx.lineCap = "round";
  ctx.strokeStyle = INK;
  const drawing = KIND_DRAWINGS[type] || KIND_DRAWINGS[type.split("_")[0]];
  if (drawing) {
    drawing(ctx, kindColor(type), look);
    return;
  }
  box(ctx, kindColor(type), -0.4, -0.4, 0.8, 0.8, look.isConverter ? 0.3 : 0.1);
  ctx.fillStyle = INK;
  letters(ctx, type.charAt(0).toUpperCase(), 0, 0.04, 0.5);
}

/** A block of ice around whatever stands in the cell. */
function ice(ctx) {
  ctx.save();
  ctx.globalAlpha = 0.5;
  box(ctx, "#8ed1ff", -0.46, -0.46, 0.92, 0.92, 0.14);
  ctx.globalAlpha = 1;
  ctx.strokeStyle = "#e6f6ff";
  ctx.beginPath();
  ctx.roundRect(-0.46, -0.46, 0.92, 0.92, 0.14);
  ctx.stroke();
  line(ctx, [[-0.34, -0.12], [-0.12, -0.34]]);
  line(ctx, [[-0.34, 0.06], [-0.24, -0.04]]);
  line(ctx, [[0.2, 0.34], [0.34, 0.2]]);
  ctx.restore();
}

/** An agent seen from above, its beak towards `angle` (0 = right); `look`: {color, ring, frozen, label, detailed}. */
function drawAgent(ctx, angle, look) {
  ctx.lineWidth = 0.05;
  ctx.lineJoin = ctx.lineCap = "round";
  ctx.strokeStyle = INK;
  ctx.save();
  ctx.rotate(angle);
  ctx.beginPath();
  ctx.arc(-0.03, 0, 0.34, 0.62, 2 * Math.PI - 0.62);
  ctx.quadraticCurveTo(0.34, -0.13, 0.46, 0);
  ctx.quadraticCurveTo(0.34, 0.13, -0.03 + 0.34 * Math.cos(0.62), 0.34 * Math.sin(0.62));
  ctx.closePath();
  ctx.fillStyle = look.frozen ? tint(look.color, 0.35) : look.color;
  ctx.fill();
  ctx.stroke();
  if (look.ring) {
    ctx.save();
    ctx.lineWidth = 0.06;
    ctx.strokeStyle = look.ring;
    ctx.beginPath();
    ctx.arc(-0.03, 0, 0.26, 0.9, 2 * Math.PI - 0.9);
    ctx.stroke();
    ctx.restore();
  }
  if (look.detailed) {
    for (const side of [-1, 1]) {
      disc(ctx, "#fff", 0.15, side * 0.17, 0.1);
      disc(ctx, INK, 0.19, side * 0.16, 0.045, false);
    }
  }
  ctx.restore();
  if (look.label !== null) {
    ctx.fillStyle = INK;
    letters(ctx, look.label, -Math.cos(angle) * 0.13, -Math.sin(angle) * 0.13 + 0.015, look.label.length > 1 ? 0.22 : 0.28);
  }
  if (look.frozen) ice(ctx);
}
