"""The headline protocol of Opt-Laws on other runs."""
