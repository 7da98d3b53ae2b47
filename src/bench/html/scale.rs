//! Axes: positions of values, ticks, and labels.

use std::fmt::Write;

/// A logarithmic axis of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogScale {
    /// Left end, ns.
    pub low: f64,
    /// Right end, ns.
    pub high: f64,
}

impl LogScale {
    /// An axis from `low` to `high`, at least a factor of 2 wide.
    pub fn new(low: f64, high: f64) -> LogScale {
        let low = low.max(1.0);
        LogScale { low, high: high.max(low * 2.0) }
    }

    /// Position of `ns`: 0 at the left end, 1 at the right, clamped.
    pub fn at(&self, ns: f64) -> f64 {
        ((ns.max(1.0) / self.low).ln() / (self.high / self.low).ln()).clamp(0.0, 1.0)
    }

    /// Ticks at 1, 2 and 5 times the powers of ten, or only at the powers of ten if that would be too many.
    pub fn ticks(&self) -> Vec<f64> {
        let of = |steps: &[f64]| -> Vec<f64> {
            let first = self.low.log10().floor() as i32;
            let decades = first..=self.high.log10().ceil() as i32;
            let all = decades.flat_map(|n| steps.iter().map(move |step| step * 10f64.powi(n)));
            all.filter(|&ns| (self.low..=self.high).contains(&ns)).collect()
        };
        let fine = of(&[1.0, 2.0, 5.0]);
        if fine.len() <= 7 { fine } else { of(&[1.0]) }
    }
}

/// A linear axis from 0: its end and the distance of its ticks, both round numbers.
pub fn linear(largest: f64) -> (f64, f64) {
    let largest = if largest.is_finite() && largest > 0.0 { largest } else { 1.0 };
    let power = 10f64.powf((largest / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| largest / step <= 5.0);
    let step = step.unwrap_or(10.0 * power);
    ((largest / step).ceil() * step, step)
}

/// A time with two or three digits and its unit: "8.9 us", "310 us", "1.5 ms".
pub fn time(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "us"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    let digits = usize::from(value < 99.95 && value.fract() > 0.001);
    format!("{value:.digits$} {unit}").replace("us", "\u{b5}s")
}

/// A number of IOPS: "950", "12.3 k", "1.42 M".
pub fn rate(per_second: f64) -> String {
    match per_second {
        n if n < 1e3 => format!("{n:.0}"),
        n if n < 99.95e3 => format!("{:.1} k", n / 1e3).replace(".0 k", " k"),
        n if n < 1e6 => format!("{:.0} k", n / 1e3),
        n => format!("{} M", (n / 1e4).round() / 100.0),
    }
}

/// A horizontal line of a plot from `left` to `right` at the height `at`, with its label to the left of it.
pub fn level(svg: &mut String, class: &str, (left, right): (f64, f64), at: f64, label: &str) {
    let _ =
        write!(svg, "<line class=\"{class}\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" />");
    let (x, y) = (left - 4.0, at + 4.0);
    let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{label}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_axis_has_its_ends_and_round_ticks() {
        let scale = LogScale::new(8_000.0, 450_000.0);
        assert_eq!((scale.at(8_000.0), scale.at(450_000.0)), (0.0, 1.0));
        assert_eq!((scale.at(0.0), scale.at(1e12)), (0.0, 1.0));
        assert!((scale.at(60_000.0) - 0.5).abs() < 1e-6);
        assert_eq!(scale.ticks(), [10e3, 20e3, 50e3, 100e3, 200e3]);
        assert_eq!(LogScale::new(1e3, 1e9).ticks(), [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9]);
        assert_eq!(LogScale::new(0.0, 0.0), LogScale { low: 1.0, high: 2.0 });
    }

    #[test]
    fn a_linear_axis_ends_at_or_beyond_the_largest_value() {
        assert_eq!(linear(47.0), (50.0, 10.0));
        assert_eq!(linear(50.0), (50.0, 10.0));
        assert_eq!(linear(51.0), (60.0, 20.0));
        assert_eq!(linear(0.9), (1.0, 0.2));
        for odd in [0.0, f64::NAN, f64::INFINITY, -3.0] {
            assert_eq!(linear(odd), (1.0, 0.2));
        }
    }

    #[test]
    fn values_are_short_and_have_units() {
        assert_eq!(time(8_900.0), "8.9 \u{b5}s");
        assert_eq!(time(310_400.0), "310 \u{b5}s");
        assert_eq!(time(10_000.0), "10 \u{b5}s");
        assert_eq!(time(1_500_000.0), "1.5 ms");
        assert_eq!(time(2e9), "2 s");
        assert_eq!(
            (rate(950.0), rate(12_345.0), rate(50_000.0)),
            ("950".into(), "12.3 k".into(), "50 k".into())
        );
        assert_eq!((rate(486_315.0), rate(1_200_000.0)), ("486 k".into(), "1.2 M".into()));
        assert_eq!((rate(1_001_000.0), rate(1_418_344.0)), ("1 M".into(), "1.42 M".into()));
    }
}
