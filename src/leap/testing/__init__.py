"""What tests of an environment, a teacher or a recipe need: small worlds, small models, a server. Nothing of leap imports it.

leap.testing.corridor     a world of a few steps, its own tutor, hand-made episodes
leap.testing.models       `Scripted`, a model that answers by a function of the test
leap.testing.server       `MockServer`, an HTTP server that speaks the OpenAI protocol, with faults on demand
leap.testing.checkpoints  tiny checkpoints with real tokenizers and chat templates
leap.testing.play         plays tasks and returns the episodes in the tasks' order
"""
