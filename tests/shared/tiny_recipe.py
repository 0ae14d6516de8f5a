"""A recipe for the tiny world of the examples: one iteration of a tiny student, in seconds."""

RECIPE = """
name: tiny-world
iterations: 1
horizon: 8
environment: {name: tiny-world, options: {tasks: 12}, validation: valid, test: [test]}
student:
  scratch: {layers: 1, width: 32, heads: 2, mlp: 32}
  prompt: {renderer: dialogue, instructions: false, candidates: false}
  sampling: {max_tokens: 32, max_reason_tokens: 16}
  decoding: constrained
teacher: {episodes: all}
training: {branches: true, optimizer: muon, lr: 0.003, steps: 4, batch_tokens: 1000}
"""
