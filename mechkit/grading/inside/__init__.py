"""What runs beside a learner's code: no expected value, no hidden exercise and no mark ever comes in here."""
