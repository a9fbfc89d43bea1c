"""Where the numbers of a run go: a JSONL file always, TensorBoard and Weights & Biases where they are wanted."""
