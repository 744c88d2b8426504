//! Bar charts as SVG. They have a background of their own, so dark pages show them as well as light ones.

use std::fmt::Write as _;

/// Colours of the series, which also differ in lightness.
const COLOURS: [&str; 8] =
    ["#1b4f9c", "#e07b00", "#2a9d60", "#b5379b", "#8c6d1f", "#6a7a89", "#c23b22", "#7fb8e6"];
const LEFT: f64 = 64.0;
const TOP: f64 = 64.0;
const HEIGHT: f64 = 260.0;
/// Width of a bar, and of one with its value above it.
const BARS: (f64, f64) = (13.0, 27.0);
const GAP: f64 = 22.0;
/// Width of a character of a label.
const CHARACTER: f64 = 6.2;
/// Height of a line of a label.
const LINE: f64 = 13.0;

/// Groups of bars, one bar for each series.
pub struct Chart {
    pub title: String,
    /// What the vertical axis measures.
    pub axis: String,
    /// Names of the groups, of one line or more.
    pub groups: Vec<String>,
    pub series: Vec<String>,
    /// By group, then by series. `None` leaves out the bar.
    pub values: Vec<Vec<Option<f64>>>,
    /// A horizontal line, with its name.
    pub line: Option<(f64, String)>,
    /// Logarithmic axis.
    pub is_logarithmic: bool,
}

impl Chart {
    /// Returns whether there is room for the values above the bars.
    fn shows_values(&self) -> bool {
        self.series.len() <= 2
    }

    fn bar(&self) -> f64 {
        if self.shows_values() { BARS.1 } else { BARS.0 }
    }
}

/// How values become heights.
struct Scale {
    low: f64,
    high: f64,
    is_logarithmic: bool,
}

impl Scale {
    fn new(chart: &Chart) -> Scale {
        let line = chart.line.iter().map(|(value, _)| *value);
        let values: Vec<f64> = chart.values.iter().flatten().flatten().copied().chain(line).collect();
        let high = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        if !chart.is_logarithmic {
            let step = step(high);
            return Scale { low: 0.0, high: (high / step).ceil() * step, is_logarithmic: false };
        }
        let low = values.iter().copied().filter(|value| *value > 0.0).fold(high, f64::min);
        let (low, high) = (low.log10().floor(), high.log10().ceil());
        Scale { low, high: high.max(low + 1.0), is_logarithmic: true }
    }

    fn ticks(&self) -> Vec<f64> {
        if self.is_logarithmic {
            return (self.low as i32..=self.high as i32).map(|power| 10f64.powi(power)).collect();
        }
        let step = step(self.high);
        (0..=(self.high / step).round() as usize).map(|count| count as f64 * step).collect()
    }

    fn height(&self, value: f64) -> f64 {
        let value = if self.is_logarithmic { value.max(f64::MIN_POSITIVE).log10() } else { value };
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0) * HEIGHT
    }
}

/// Returns a round distance of the axis' lines, of which about five fit.
fn step(high: f64) -> f64 {
    let power = 10f64.powf((high / 5.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| high / step <= 6.0)
        .unwrap_or(high)
}

/// Returns the chart as the text of a file.
pub fn draw(chart: &Chart) -> String {
    let scale = Scale::new(chart);
    let label = chart.groups.iter().flat_map(|name| name.lines()).map(|line| line.chars().count()).max();
    let label = label.unwrap_or(0) as f64 * CHARACTER + 8.0;
    let group = (chart.series.len() as f64 * chart.bar() + GAP).max(label);
    let right = LEFT + group * chart.groups.len() as f64;
    let (width, height) = (right + 24.0, TOP + HEIGHT + 44.0);
    let base = TOP + HEIGHT;
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11" fill="#222">
<rect width="{width}" height="{height}" fill="#fff" stroke="#ccc"/>
<text x="{LEFT}" y="24" font-size="15">{}</text>
<text x="14" y="{}" text-anchor="middle" transform="rotate(-90 14 {})">{}</text>
"##,
        chart.title,
        TOP + HEIGHT / 2.0,
        TOP + HEIGHT / 2.0,
        chart.axis
    );
    legend(&mut svg, chart);
    grid(&mut svg, &scale, right);
    for (index, name) in chart.groups.iter().enumerate() {
        let start = LEFT + index as f64 * group;
        bars(&mut svg, chart, &scale, index, start + (group - chart.series.len() as f64 * chart.bar()) / 2.0);
        for (number, line) in name.lines().enumerate() {
            let (middle, y) = (start + group / 2.0, base + 18.0 + number as f64 * LINE);
            let _ = writeln!(svg, r#"<text x="{middle:.1}" y="{y}" text-anchor="middle">{line}</text>"#);
        }
    }
    if let Some((value, name)) = &chart.line {
        let (y, end) = (base - scale.height(*value), right - 2.0);
        let _ = writeln!(
            svg,
            r##"<path d="M{LEFT} {y:.1}H{right:.1}" stroke="#222" stroke-dasharray="5 3"/><text x="{end:.1}" y="{:.1}" text-anchor="end">{name}</text>"##,
            y - 4.0
        );
    }
    svg + "</svg>\n"
}

fn grid(svg: &mut String, scale: &Scale, right: f64) {
    for tick in scale.ticks() {
        let y = TOP + HEIGHT - scale.height(tick);
        let _ = writeln!(
            svg,
            r##"<path d="M{LEFT} {y:.1}H{right:.1}" stroke="#ddd"/><text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"##,
            LEFT - 6.0,
            y + 4.0,
            short(tick)
        );
    }
}

fn legend(svg: &mut String, chart: &Chart) {
    let mut x = LEFT;
    for (name, colour) in chart.series.iter().zip(COLOURS) {
        let _ = writeln!(
            svg,
            r#"<rect x="{x:.1}" y="36" width="10" height="10" fill="{colour}"/><text x="{:.1}" y="45">{name}</text>"#,
            x + 14.0
        );
        x += 30.0 + 6.5 * name.chars().count() as f64;
    }
}

fn bars(svg: &mut String, chart: &Chart, scale: &Scale, group: usize, mut x: f64) {
    for (value, colour) in chart.values[group].iter().zip(COLOURS) {
        if let Some(value) = value {
            let height = scale.height(*value).max(1.0);
            let y = TOP + HEIGHT - height;
            let _ = writeln!(
                svg,
                r#"<rect x="{x:.1}" y="{y:.1}" width="{:.1}" height="{height:.1}" fill="{colour}"><title>{}</title></rect>"#,
                chart.bar() - 2.0,
                short(*value)
            );
            if chart.shows_values() {
                let (middle, above) = (x + chart.bar() / 2.0 - 1.0, y - 3.0);
                let _ = writeln!(
                    svg,
                    r#"<text x="{middle:.1}" y="{above:.1}" text-anchor="middle" font-size="9">{}</text>"#,
                    short(*value)
                );
            }
        }
        x += chart.bar();
    }
}

/// Returns a number with few digits.
fn short(value: f64) -> String {
    match value {
        value if value >= 100.0 || value.fract().abs() < 1e-9 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
