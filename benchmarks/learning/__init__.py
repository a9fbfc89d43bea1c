"""How much is learned from how many steps and seconds: named tasks, several learners, one harness; see docs/learning.md."""
