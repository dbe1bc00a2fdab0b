//! The hour as bars, one a minute: numbers to rectangles, and the same in words. Knows nothing of HTML; the template draws.

use super::words::{many, number};
use crate::observe::history::Minute;

/// Height of the drawing, in its own units; a minute is 10 wide.
pub const HEIGHT: f64 = 100.0;
/// What is there can be seen, however little it is.
const LEAST: f64 = 2.0;

/// A minute's bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// In words.
    pub title: String,
    /// Its pieces, from the bottom up.
    pub pieces: Vec<Piece>,
}

/// A piece of a bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// Its CSS class.
    pub class: &'static str,
    /// Left edge.
    pub x: usize,
    /// Top edge.
    pub y: String,
    /// Height.
    pub height: String,
}

/// The drawing.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// One bar for each minute that has any, oldest first.
    pub bars: Vec<Bar>,
    /// Its width.
    pub width: usize,
    /// What the full height stands for.
    pub most: String,
    /// All of it in a sentence.
    pub summary: String,
}

/// Draws minutes, oldest first; the last is the running one.
pub fn chart(minutes: &[Minute]) -> Chart {
    let most = minutes.iter().map(|minute| minute.total()).max().unwrap_or_default();
    let back = |index: usize| minutes.len().saturating_sub(index + 1);
    let with_any = minutes.iter().enumerate().filter(|(_, minute)| minute.total() > 0);
    let bars = with_any.map(|(index, minute)| bar(index, back(index), *minute, most)).collect();
    let all: u64 = minutes.iter().map(|minute| minute.total()).sum();
    let busiest = minutes.iter().enumerate().max_by_key(|(_, minute)| minute.total()).filter(|_| all > 0);
    let busiest = busiest.map(|(index, minute)| format!(" The busiest was {} with {}.", when(back(index)), number(minute.total())));
    let summary = format!("Requests in each of the last {} minutes: {} in all.{}", minutes.len(), number(all), busiest.unwrap_or_default());
    Chart { bars, width: minutes.len() * 10, most: number(most), summary }
}

/// A minute so many back.
pub fn when(back: usize) -> String {
    match back {
        0 => "this minute".to_owned(),
        back => format!("{} ago", many(back as u64, "minute")),
    }
}

fn bar(index: usize, back: usize, minute: Minute, most: u64) -> Bar {
    let parts = [
        ("denied", "denied", minute.denied),
        ("failed", "failed", minute.failed),
        ("would", "would be denied", minute.would_deny),
        ("passed", "passed", minute.passed),
    ];
    let mut top = HEIGHT;
    let mut pieces = Vec::new();
    for (class, _, count) in parts.iter().filter(|(_, _, count)| *count > 0) {
        let height = (*count as f64 / most.max(1) as f64 * HEIGHT).max(LEAST).min(top);
        top -= height;
        pieces.push(Piece { class, x: index * 10 + 1, y: format!("{top:.1}"), height: format!("{height:.1}") });
    }
    let said: Vec<_> =
        parts.iter().filter(|(_, _, count)| *count > 0).map(|(_, what, count)| format!("{} {what}", number(*count))).collect();
    Bar { title: format!("{}: {}", when(back), said.join(", ")), pieces }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stand_on_the_ground_and_stay_inside() {
        let mut minutes = [Minute::default(); 60];
        minutes[58] = Minute { passed: 50, would_deny: 0, denied: 49, failed: 1 };
        minutes[59] = Minute { passed: 1, ..Minute::default() };
        let chart = chart(&minutes);
        assert_eq!((chart.bars.len(), chart.width, chart.most.as_str()), (2, 600, "100"));
        assert_eq!(chart.summary, "Requests in each of the last 60 minutes: 101 in all. The busiest was 1 minute ago with 100.");
        let [first, last] = chart.bars.as_slice() else { panic!("{chart:?}") };
        assert_eq!(first.title, "1 minute ago: 49 denied, 1 failed, 50 passed");
        assert_eq!(last.title, "this minute: 1 passed");
        let pieces: Vec<_> = first.pieces.iter().map(|p| (p.class, p.x, p.y.as_str(), p.height.as_str())).collect();
        assert_eq!(pieces, [("denied", 581, "51.0", "49.0"), ("failed", 581, "49.0", "2.0"), ("passed", 581, "0.0", "49.0")]);
    }

    #[test]
    fn an_empty_hour_is_one() {
        let chart = chart(&[Minute::default(); 60]);
        assert_eq!((chart.bars.len(), chart.summary.as_str()), (0, "Requests in each of the last 60 minutes: 0 in all."));
    }
}
