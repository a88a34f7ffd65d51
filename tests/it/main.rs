//! All integration tests, in one binary: each module states the rule it tests.

mod recordings;
