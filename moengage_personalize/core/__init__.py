"""The sans-IO core: it decides, and does nothing. Time is an argument; there is no await, clock, randomness or I/O."""
