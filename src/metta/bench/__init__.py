"""Measuring the engine on the machine at hand: `metta bench`."""
