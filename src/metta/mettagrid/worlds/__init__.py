"""Ready-made environments and curricula; `metta.mettagrid.registry` gives them their names."""
