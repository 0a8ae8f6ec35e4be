//! The functions of the language and the types of their arguments.

use super::ValueType::{self, Matrix, Scalar, String, Vector};

/// A function.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// Types of its arguments.
    pub args: &'static [ValueType],
    /// How many arguments more than one fewer than listed there may be: 0 none, -1 any number.
    pub variadic: i32,
    /// What it yields.
    pub returns: ValueType,
}

const fn f(name: &'static str, args: &'static [ValueType]) -> Function {
    Function { name, args, variadic: 0, returns: Vector }
}

const fn v(name: &'static str, args: &'static [ValueType], variadic: i32) -> Function {
    Function { name, args, variadic, returns: Vector }
}

const fn s(name: &'static str, args: &'static [ValueType]) -> Function {
    Function { name, args, variadic: 0, returns: Scalar }
}

/// All functions, by name.
pub static FUNCTIONS: &[Function] = &[
    f("abs", &[Vector]),
    f("absent", &[Vector]),
    f("absent_over_time", &[Matrix]),
    f("acos", &[Vector]),
    f("acosh", &[Vector]),
    f("asin", &[Vector]),
    f("asinh", &[Vector]),
    f("atan", &[Vector]),
    f("atanh", &[Vector]),
    f("avg_over_time", &[Matrix]),
    f("ceil", &[Vector]),
    f("changes", &[Matrix]),
    f("clamp", &[Vector, Scalar, Scalar]),
    f("clamp_max", &[Vector, Scalar]),
    f("clamp_min", &[Vector, Scalar]),
    f("cos", &[Vector]),
    f("cosh", &[Vector]),
    f("count_over_time", &[Matrix]),
    v("day_of_month", &[Vector], 1),
    v("day_of_week", &[Vector], 1),
    v("day_of_year", &[Vector], 1),
    v("days_in_month", &[Vector], 1),
    f("deg", &[Vector]),
    f("delta", &[Matrix]),
    f("deriv", &[Matrix]),
    f("double_exponential_smoothing", &[Matrix, Scalar, Scalar]),
    s("end", &[]),
    f("exp", &[Vector]),
    f("first_over_time", &[Matrix]),
    f("floor", &[Vector]),
    f("histogram_avg", &[Vector]),
    f("histogram_count", &[Vector]),
    f("histogram_fraction", &[Scalar, Scalar, Vector]),
    f("histogram_quantile", &[Scalar, Vector]),
    v("histogram_quantiles", &[Vector, String, Scalar, Scalar], 9),
    f("histogram_stddev", &[Vector]),
    f("histogram_stdvar", &[Vector]),
    f("histogram_sum", &[Vector]),
    v("hour", &[Vector], 1),
    f("idelta", &[Matrix]),
    f("increase", &[Matrix]),
    v("info", &[Vector, Vector], 1),
    f("irate", &[Matrix]),
    v("label_join", &[Vector, String, String, String], -1),
    f("label_replace", &[Vector, String, String, String, String]),
    f("last_over_time", &[Matrix]),
    f("ln", &[Vector]),
    f("log10", &[Vector]),
    f("log2", &[Vector]),
    f("mad_over_time", &[Matrix]),
    s("max_of", &[Scalar, Scalar]),
    f("max_over_time", &[Matrix]),
    s("min_of", &[Scalar, Scalar]),
    f("min_over_time", &[Matrix]),
    v("minute", &[Vector], 1),
    v("month", &[Vector], 1),
    s("pi", &[]),
    f("predict_linear", &[Matrix, Scalar]),
    f("present_over_time", &[Matrix]),
    f("quantile_over_time", &[Scalar, Matrix]),
    f("rad", &[Vector]),
    s("range", &[]),
    f("rate", &[Matrix]),
    f("resets", &[Matrix]),
    v("round", &[Vector, Scalar], 1),
    s("scalar", &[Vector]),
    f("sgn", &[Vector]),
    f("sin", &[Vector]),
    f("sinh", &[Vector]),
    f("sort", &[Vector]),
    v("sort_by_label", &[Vector, String], -1),
    v("sort_by_label_desc", &[Vector, String], -1),
    f("sort_desc", &[Vector]),
    f("sqrt", &[Vector]),
    s("start", &[]),
    f("start_timestamp", &[Vector]),
    f("stddev_over_time", &[Matrix]),
    f("stdvar_over_time", &[Matrix]),
    s("step", &[]),
    f("sum_over_time", &[Matrix]),
    f("tan", &[Vector]),
    f("tanh", &[Vector]),
    s("time", &[]),
    f("timestamp", &[Vector]),
    f("ts_of_first_over_time", &[Matrix]),
    f("ts_of_last_over_time", &[Matrix]),
    f("ts_of_max_over_time", &[Matrix]),
    f("ts_of_min_over_time", &[Matrix]),
    f("vector", &[Scalar]),
    v("year", &[Vector], 1),
];

/// The function of a name.
pub(crate) fn function(name: &str) -> Option<&'static Function> {
    FUNCTIONS.binary_search_by(|function| function.name.cmp(name)).ok().map(|at| &FUNCTIONS[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(FUNCTIONS.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert_eq!(function("rate").map(|rate| rate.args), Some(&[Matrix][..]));
    }
}
