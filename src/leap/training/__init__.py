"""Methods: how corrections become a new policy. Each is a small class and its config, on transformers' and TRL's trainers."""
