// What lies compressed in the page, as text.
async function unpacked(name) {
  const base64 = document.getElementById(`packed-${name}`).textContent.trim();
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

const escaped = (value) => String(value).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

function shown(value) {
  if (value === null) return "";
  if (typeof value === "string") return value === "infinite" ? "∞" : escaped(value);
  if (value === 0) return "0";
  const plain = Math.abs(value) >= 0.001 && Math.abs(value) < 10000;
  return plain ? String(Number(value.toPrecision(3))) : value.toExponential(1);
}

const sortable = (value) =>
  value === null ? -1 : typeof value === "string" ? Number.MAX_VALUE : value;

function numeric(value, type) {
  return type === "display" ? shown(value) : sortable(value);
}

function identity(id, type, row) {
  const [file, test] = [id.slice(0, id.indexOf("::")), id.slice(id.indexOf("::") + 2)];
  if (type !== "display") return type === "filter" ? `${id} ${row[12] ?? ""}` : id;
  const at = test.indexOf("[");
  const name = at < 0 ? test : test.slice(0, at);
  const parameters = at < 0 ? "" : `<small class="code">${escaped(test.slice(at))}</small>`;
  const why = row[12] ? `<small class="why">${escaped(row[12])}</small>` : "";
  const place = `<small>${escaped(file)}</small>`;
  return `<span class="code">${escaped(name)}</span>${parameters}${why}${place}`;
}

async function cases() {
  const [source, data] = await Promise.all([unpacked("datatables"), unpacked("rows")]);
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const { default: DataTable } = await import(url);
  URL.revokeObjectURL(url);
  const { legs, rows } = JSON.parse(data);

  const number = { type: "num", className: "number", render: numeric, searchable: false, orderSequence: ["desc", "asc", ""] };
  const table = new DataTable("#cases", {
    data: rows,
    autoWidth: false,
    order: [],
    pageLength: 25,
    layout: { topStart: null, topEnd: null, bottomStart: "info", bottomEnd: "paging" },
    columns: [
      { title: "Case", type: "string", className: "id", render: identity },
      { title: "Leg", type: "string", render: (leg) => escaped(legs[leg]) },
      { title: "Device", type: "string", render: escaped },
      { title: "Outcome", type: "string", render: (v, type) => (type === "display" ? `<span class="${escaped(v)}">${escaped(v)}</span>` : v) },
      { title: "Worst quantity", type: "string", render: (v, type, row) => (v === null ? "" : escaped(`${v}, ${row[11]}`)) },
      { title: "Error / bound", ...number },
      { title: "Error", ...number },
      { title: "Bound", ...number },
      { title: "Absolute", ...number },
      { title: "Ulps", ...number },
      { title: "Seconds", ...number },
    ],
    language: { info: "_START_ to _END_ of _TOTAL_", infoFiltered: "(of _MAX_)", infoEmpty: "none", zeroRecords: "No case is like that." },
  });

  const leg = document.getElementById("filter-leg");
  const device = document.getElementById("filter-device");
  const outcome = document.getElementById("filter-outcome");
  const search = document.getElementById("filter-search");
  table.search.fixed("filters", (_, row) =>
    (leg.value === "" || row[1] === Number(leg.value)) &&
    (device.value === "" || (row[2] || "none") === device.value) &&
    (outcome.value === "" || row[3] === outcome.value));
  for (const select of [leg, device, outcome]) select.addEventListener("change", () => table.draw());
  search.addEventListener("input", () => table.search(search.value).draw());
  for (const link of document.querySelectorAll("[data-outcome]")) {
    link.addEventListener("click", () => {
      outcome.value = link.dataset.outcome;
      table.draw();
    });
  }
}

const charts = new Map();

function draw() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const narrow = window.innerWidth < 704;
  const axis = { gridcolor: colour("rule"), linecolor: colour("rule"), zeroline: false, automargin: true, fixedrange: true };
  for (const [name, figure] of charts) {
    const data = figure.data.map((trace) => {
      const own = colour(trace.meta.colour);
      const bar = trace.type === "bar";
      return {
        ...trace,
        marker: { ...trace.marker, color: own },
        ...(bar ? {} : { line: { ...trace.line, color: own }, error_y: { ...trace.error_y, color: own } }),
      };
    });
    const titled = (mine) => ({ ...axis, ...mine, title: { ...mine.title, standoff: 10 } });
    const layout = {
      ...figure.layout,
      autosize: true,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("muted") },
      margin: { l: 8, r: 12, t: 12, b: 8 },
      legend: { ...figure.layout.legend, orientation: "h", x: 0, y: -0.22, yanchor: "top", font: { color: colour("text") } },
      hoverlabel: { bgcolor: colour("card"), bordercolor: colour("rule"), font: { color: colour("text") } },
      xaxis: titled({ ...figure.layout.xaxis, tickfont: { size: narrow ? 9 : 12 } }),
      yaxis: titled({ ...figure.layout.yaxis, tickfont: { size: 12 } }),
      shapes: figure.layout.shapes.map((shape) => ({ ...shape, line: { ...shape.line, color: colour("muted") } })),
    };
    Plotly.react(`chart-${name}`, data, layout, { responsive: true, displayModeBar: false });
  }
}

async function figures() {
  if (!document.querySelector(".chart")) return;
  const [source, data] = await Promise.all([unpacked("plotly"), unpacked("figures")]);
  const script = document.createElement("script");
  script.textContent = source;
  document.head.append(script);
  for (const [name, figure] of Object.entries(JSON.parse(data))) charts.set(name, figure);
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

function trouble(error) {
  const place = document.getElementById("trouble");
  place.textContent = `This browser cannot show all of the page: ${error.message}`;
  throw error;
}

cases().then(figures).catch(trouble);
