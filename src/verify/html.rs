//! The report as one HTML file: no script, nothing fetched, light and dark.

use std::fmt::Write as _;

use super::report::{ChannelReport, DayReport, Finding, Mark, Report, SLICE_SECONDS, Severity, Slice, Verdict};

/// The report as a page.
#[must_use]
pub fn html(report: &Report) -> String {
    let mut page = String::with_capacity(1 << 16);
    let title = format!("tapeway verify {} to {}", report.from, report.to);
    put(&mut page, format_args!("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"));
    put(&mut page, format_args!("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"));
    put(&mut page, format_args!("<title>{}</title>\n<style>{STYLE}</style></head><body>\n", Escaped(&title)));
    head(&mut page, report);
    legend(&mut page);
    let mut venue = "";
    for channel in &report.channels {
        if channel.venue != venue {
            if !venue.is_empty() {
                page.push_str("</tbody></table></div>\n");
            }
            venue = &channel.venue;
            put(&mut page, format_args!("<h2>{}</h2>\n<div class=\"wide\"><table class=\"channels\">", Escaped(venue)));
            page.push_str(TABLE_HEAD);
        }
        rows(&mut page, channel);
    }
    if !venue.is_empty() {
        page.push_str("</tbody></table></div>\n");
    }
    findings(&mut page, report);
    lanes(&mut page, report);
    page.push_str("</body></html>\n");
    page
}

fn head(page: &mut String, report: &Report) {
    put(page, format_args!("<header><h1>Is everything there?</h1>{}", badge(report.verdict)));
    put(
        page,
        format_args!("<p class=\"range\">{} &ndash; {} UTC</p></header>\n", plain(&report.from), plain(&report.to)),
    );
    put(page, format_args!("<p class=\"headline\">{}.</p>\n", Escaped(&capital(&report.headline()))));
    let days = || report.channels.iter().flat_map(|channel| &channel.days);
    let sum = |value: fn(&DayReport) -> u64| days().map(value).sum::<u64>();
    let damage = sum(|day| day.silent + day.lost + day.surplus + day.altered_hours + day.doubled + day.malformed);
    let channels = report.channels.len();
    let proven = report.channels.iter().filter(|channel| channel.verdict <= Verdict::Intact).count();
    let tiles: [(&str, String, &str); 6] = [
        ("rows read", thousands(report.rows), "held against their seals"),
        ("channels", format!("{proven} of {channels}"), "with nothing missing that can be proven"),
        ("healed", thousands(sum(|day| day.healed)), "rows fetched again or late"),
        ("stretches missed", thousands(sum(|day| day.gaps)), "named in audit.gaps, not healed"),
        ("stretches unprovable", thousands(sum(|day| day.unprovable)), "nothing tells what was missed"),
        ("damage", thousands(damage), "missing, doubled or altered, and named by nothing"),
    ];
    page.push_str("<section class=\"tiles\">");
    for (name, value, what) in tiles {
        let class = if name == "damage" && damage > 0 { " bad" } else { "" };
        put(
            page,
            format_args!("<div class=\"tile{class}\"><b>{value}</b><span>{name}</span><small>{what}</small></div>"),
        );
    }
    page.push_str("</section>\n");
    put(page, format_args!("<p class=\"fine\">tapeway {} &middot; {}", report.version, Escaped(&report.server)));
    put(page, format_args!(" &middot; {:.1} s", report.seconds));
    if report.unsealed_rows > 0 {
        let rows = thousands(report.unsealed_rows);
        put(page, format_args!(" &middot; {rows} rows are older than the seals and only their ids were checked"));
    }
    if report.retired_seals > 0 {
        put(page, format_args!(" &middot; {} seals of rows past retention", thousands(report.retired_seals)));
    }
    if let Some(against) = &report.against_journal {
        let (lanes, rows) = (against.lanes.len(), thousands(against.journaled));
        put(page, format_args!(" &middot; journal: {rows} rows of {lanes} lanes, {} differ", against.differences));
    }
    page.push_str("</p>\n");
}

fn legend(page: &mut String) {
    page.push_str(
        "<p class=\"legend\"><span>Each strip is one UTC day in slices of five minutes; bars are rows.</span>",
    );
    for (class, name) in [
        ("gap", "missed, named"),
        ("healed", "missed and healed"),
        ("unprovable", "nothing can tell"),
        ("hole", "nothing came, no reason known"),
        ("damaged", "damaged hour"),
        ("outside", "not looked at"),
    ] {
        put(page, format_args!("<span><i class=\"key {class}\"></i>{name}</span>"));
    }
    page.push_str("</p>\n");
}

fn rows(page: &mut String, channel: &ChannelReport) {
    for day in &channel.days {
        put(page, format_args!("<tr><th>{}</th><td>{}</td>", Escaped(&channel.symbol), channel.channel));
        put(page, format_args!("<td class=\"proof\">{}</td>", Escaped(&channel.proof.replace('_', " "))));
        put(
            page,
            format_args!("<td class=\"day\">{}</td><td>{}</td>", day.date, day.verdict.map_or(String::new(), badge)),
        );
        page.push_str("<td class=\"strip\">");
        strip(page, &day.strip);
        page.push_str("</td>");
        let expected = day.expected.map_or_else(|| "&ndash;".to_owned(), thousands);
        put(page, format_args!("<td>{expected}</td><td>{}</td>", thousands(day.stored)));
        let altered = day.altered_hours + day.malformed;
        let numbers = [
            (day.healed, ""),
            (day.missing, "warn"),
            (day.gaps, "warn"),
            (day.unprovable, ""),
            (day.silent, "bad"),
            (day.lost, "bad"),
            (day.surplus, "bad"),
            (altered, "bad"),
            (day.doubled, "bad"),
            (day.out_of_order, ""),
            (day.crossed, ""),
        ];
        for (number, class) in numbers {
            if number == 0 {
                page.push_str("<td class=\"none\">&middot;</td>");
            } else {
                put(page, format_args!("<td class=\"{class}\">{}</td>", thousands(number)));
            }
        }
        if day.holes == 0 {
            page.push_str("<td class=\"none\">&middot;</td></tr>\n");
        } else {
            put(page, format_args!("<td>{} ({} s)</td></tr>\n", day.holes, thousands(day.hole_seconds)));
        }
    }
}

/// A day as bars over time, and what is to be known of it as bands.
fn strip(page: &mut String, slices: &[Slice]) {
    put(
        page,
        format_args!(
            "<svg viewBox=\"0 0 {} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\">",
            slices.len().max(1)
        ),
    );
    let most = slices.iter().map(|slice| slice.rows).max().unwrap_or(0);
    let mut path = String::new();
    for (from, to, height) in runs(slices, |slice| height(slice.rows, most)) {
        if height > 0 {
            put(&mut path, format_args!("M{from} {HEIGHT}V{}H{to}V{HEIGHT}Z", HEIGHT - height));
        }
    }
    if !path.is_empty() {
        put(page, format_args!("<path d=\"{path}\"/>"));
    }
    for (from, to, mark) in runs(slices, |slice| slice.mark) {
        let class = match mark {
            Mark::Plain => continue,
            Mark::Outside => "outside",
            Mark::Hole => "hole",
            Mark::Healed => "healed",
            Mark::Unprovable => "unprovable",
            Mark::Gap => "gap",
            Mark::Damaged => "damaged",
        };
        let width = to - from;
        // A wash over the whole height, and a band that bars cannot hide.
        let wash = if mark == Mark::Outside { "" } else { " wash" };
        put(page, format_args!("<rect class=\"{class}{wash}\" x=\"{from}\" width=\"{width}\" height=\"{HEIGHT}\">"));
        put(page, format_args!("<title>{} &ndash; {} {class}</title></rect>", clock(from), clock(to)));
        if mark != Mark::Outside {
            let top = HEIGHT - BAND;
            put(
                page,
                format_args!("<rect class=\"{class}\" x=\"{from}\" y=\"{top}\" width=\"{width}\" height=\"{BAND}\"/>"),
            );
        }
    }
    page.push_str("</svg>");
}

/// Neighbours that are alike, as begin, end and what they are.
fn runs<T: PartialEq + Copy>(slices: &[Slice], of: impl Fn(&Slice) -> T) -> Vec<(usize, usize, T)> {
    let mut runs: Vec<(usize, usize, T)> = Vec::new();
    for (at, slice) in slices.iter().enumerate() {
        let value = of(slice);
        match runs.last_mut() {
            Some((_, to, last)) if *last == value => *to = at + 1,
            Some(_) | None => runs.push((at, at + 1, value)),
        }
    }
    runs
}

/// A bar's height: by the logarithm, so that a quiet hour is seen beside a busy one.
fn height(rows: u32, most: u32) -> usize {
    if rows == 0 {
        return 0;
    }
    let share = f64::from(rows).ln_1p() / f64::from(most.max(1)).ln_1p();
    let steps = [0.2, 0.35, 0.5, 0.6, 0.7, 0.78, 0.86, 0.93];
    4 + steps.iter().filter(|step| share > **step).count() * 2
}

/// Start of a slice as a time of day.
fn clock(slice: usize) -> String {
    let minutes = slice * usize::try_from(SLICE_SECONDS / 60).unwrap_or(5);
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

fn findings(page: &mut String, report: &Report) {
    if report.findings.is_empty() {
        page.push_str("<h2>Findings</h2><p>None.</p>\n");
        return;
    }
    put(page, format_args!("<h2>Findings</h2>\n<div class=\"wide\"><table class=\"findings\"><thead><tr>"));
    for heading in ["", "what", "when", "where", "lane", "found"] {
        put(page, format_args!("<th>{heading}</th>"));
    }
    page.push_str("</tr></thead><tbody>\n");
    for finding in report.findings.iter().take(HTML_FINDINGS_MAX) {
        row(page, finding);
    }
    page.push_str("</tbody></table></div>\n");
    let rest = report.findings.len().saturating_sub(HTML_FINDINGS_MAX) as u64 + report.findings_left_out;
    if rest > 0 {
        put(page, format_args!("<p>And {} more; <code>--format json</code> has them.</p>\n", thousands(rest)));
    }
}

fn row(page: &mut String, finding: &Finding) {
    let (class, name) = match finding.severity {
        Severity::Damage => ("damaged", "damage"),
        Severity::Gap => ("gaps", "gap"),
        Severity::Note => ("note", "note"),
    };
    put(page, format_args!("<tr><td><span class=\"badge {class}\">{name}</span></td>"));
    put(page, format_args!("<td>{}</td><td class=\"day\">{}</td>", finding.kind.replace('_', " "), plain(&finding.at)));
    let parts = [finding.venue.as_str(), finding.symbol.as_str(), finding.table];
    let place: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    put(page, format_args!("<td>{}</td>", Escaped(&place.join(" "))));
    put(page, format_args!("<td>{}</td>", finding.lane_id.map_or(String::new(), |lane| lane.to_string())));
    put(page, format_args!("<td class=\"detail\">{}</td></tr>\n", Escaped(&finding.detail)));
}

fn lanes(page: &mut String, report: &Report) {
    if report.lanes.is_empty() {
        return;
    }
    page.push_str("<h2>Lanes</h2>\n<div class=\"wide\"><table class=\"findings\"><thead><tr>");
    for heading in ["lane", "name", "frames", "rows since it began", "first row here", "last row here", "holes"] {
        put(page, format_args!("<th>{heading}</th>"));
    }
    page.push_str("</tr></thead><tbody>\n");
    for lane in &report.lanes {
        let (first, last) = lane.received.clone().unwrap_or_default();
        put(page, format_args!("<tr><td>{}</td><td>{}</td>", lane.lane_id, Escaped(&lane.name)));
        put(page, format_args!("<td>{}</td>", thousands(lane.next_pos.unsigned_abs())));
        put(page, format_args!("<td>{}</td>", thousands(lane.rows_total.unsigned_abs())));
        put(page, format_args!("<td class=\"day\">{}</td><td class=\"day\">{}</td>", plain(&first), plain(&last)));
        put(page, format_args!("<td>{}</td></tr>\n", lane.holes.len()));
    }
    page.push_str("</tbody></table></div>\n");
}

fn badge(verdict: Verdict) -> String {
    let name = verdict.name().to_lowercase();
    format!("<span class=\"badge {name}\">{name}</span>")
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// A moment with a space for its T and without its Z.
fn plain(moment: &str) -> String {
    moment.trim_end_matches('Z').replace('T', " ")
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Text inside an element or an attribute.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

fn put(page: &mut String, arguments: std::fmt::Arguments<'_>) {
    page.write_fmt(arguments).expect("a String takes any text");
}

const TABLE_HEAD: &str = "<thead><tr><th>instrument</th><th>channel</th><th>proof</th><th>day</th><th>verdict</th>\
<th class=\"strip\"><span class=\"axis\"><span>00</span><span>06</span><span>12</span><span>18</span><span>24</span></span></th>\
<th>expected</th><th>stored</th><th>healed</th><th>missing</th><th>gaps</th><th>unprov.</th><th>silent</th>\
<th>lost</th><th>surplus</th><th>altered</th><th>doubled</th><th>order</th><th>crossed</th><th>holes</th></tr></thead><tbody>\n";
/// Height of a strip in its own units.
const HEIGHT: usize = 22;
/// Height of the band of a mark.
const BAND: usize = 7;
/// Findings shown on the page.
const HTML_FINDINGS_MAX: usize = 1_000;

const STYLE: &str = "
:root{color-scheme:light dark;--bg:#fbfbf9;--fg:#1d2126;--dim:#6a727c;--line:#dcdfe3;--card:#fff;--bar:#7d93ab;
--good:#1e7f4f;--warn:#a76a00;--bad:#c0262d;--info:#6a5acd;--goodbg:#e0f3e8;--warnbg:#fdf0d2;--badbg:#fbe0e0;--infobg:#ebe8fb;
--gap:#f0a92b;--heal:#a8d8bd;--unp:#c9c0f2;--hole:#c7ccd2;--dam:#e5484d;--out:#eef0f2}
@media (prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#e4e7ea;--dim:#929ba5;--line:#2b3138;--card:#1b1f24;--bar:#7f97b2;
--good:#63d297;--warn:#f0b44c;--bad:#ff7a7f;--info:#b3a6ff;--goodbg:#173626;--warnbg:#3a2c0d;--badbg:#451a1d;--infobg:#2a2545;
--gap:#b97a10;--heal:#23563b;--unp:#453c7d;--hole:#4a525b;--dam:#b3262c;--out:#1f2429}}
*{box-sizing:border-box}body{margin:0 auto;padding:24px 28px 60px;max-width:1800px;background:var(--bg);color:var(--fg);
font:14px/1.45 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}
header{display:flex;gap:14px;align-items:baseline;flex-wrap:wrap}h1{font-size:24px;margin:0}h2{font-size:16px;margin:30px 0 8px}
.range{margin:0;color:var(--dim);font-variant-numeric:tabular-nums}.headline{margin:8px 0 0;font-size:15px}.fine,.legend{color:var(--dim);font-size:12.5px}
.badge{display:inline-block;padding:1px 9px;border-radius:10px;font-size:12px;font-weight:600;white-space:nowrap;background:var(--out);color:var(--dim)}
header .badge{font-size:15px;padding:3px 14px;border-radius:14px}
.badge.complete,.badge.intact{background:var(--goodbg);color:var(--good)}.badge.gaps{background:var(--warnbg);color:var(--warn)}
.badge.unprovable{background:var(--infobg);color:var(--info)}.badge.damaged{background:var(--badbg);color:var(--bad)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:10px;margin:18px 0 10px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 14px;display:flex;flex-direction:column}
.tile b{font-size:22px;font-variant-numeric:tabular-nums}.tile span{font-weight:600}.tile small{color:var(--dim)}.tile.bad b{color:var(--bad)}
.legend{display:flex;flex-wrap:wrap;gap:6px 18px;align-items:center}.key{display:inline-block;width:18px;height:12px;margin-right:6px;border-radius:2px;vertical-align:-1px}
.wide{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:8px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:4px 7px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}tr:last-child td,tr:last-child th{border-bottom:0}
thead th{font-size:11px;font-weight:600;color:var(--dim);white-space:normal;vertical-align:bottom;background:var(--card)}
tbody th,.channels td:nth-child(-n+5),.channels th:nth-child(-n+5),.findings td,.findings th{text-align:left}
.proof,.none{color:var(--dim)}td.warn{color:var(--warn);font-weight:600}td.bad{color:var(--bad);font-weight:700}
td.strip,th.strip{min-width:240px;width:30%;padding:3px 6px}.axis{display:flex;justify-content:space-between}
svg{display:block;width:100%;height:24px;background:var(--bg);border-radius:2px}svg path{fill:var(--bar)}.wash{fill-opacity:.4}
.gap{fill:var(--gap);background:var(--gap)}.healed{fill:var(--heal);background:var(--heal)}.damaged{fill:var(--dam)}.key.damaged{background:var(--dam)}
.unprovable{fill:var(--unp)}.key.unprovable{background:var(--unp)}.hole{fill:var(--hole);background:var(--hole)}.outside{fill:var(--out);background:var(--out)}
.detail{white-space:normal;min-width:320px}.day{color:var(--dim)}code{font-family:ui-monospace,Menlo,Consolas,monospace}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_venue_calls_itself_cannot_break_the_page() {
        assert_eq!(Escaped("<a href=\"&\">").to_string(), "&lt;a href=&quot;&amp;&quot;&gt;");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(thousands(1), "1");
        assert_eq!(thousands(1_234_567), "1\u{202f}234\u{202f}567");
    }

    #[test]
    fn a_strip_has_a_bar_for_rows_and_a_band_for_a_mark() {
        let mut slices = vec![Slice { rows: 5, mark: Mark::Plain }; 4];
        slices[2] = Slice { rows: 0, mark: Mark::Gap };
        let mut page = String::new();
        strip(&mut page, &slices);
        assert!(page.contains("<rect class=\"gap wash\" x=\"2\" width=\"1\""), "{page}");
        assert!(page.contains("M0 22V") && page.contains("M3 22V"), "{page}");
    }
}
