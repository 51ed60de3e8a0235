"""The deterministic simulator: two TCP cores, a faulty wire, everything drawn from one seed."""
