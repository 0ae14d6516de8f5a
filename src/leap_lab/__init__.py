"""The laboratory of leap: measures of leakage and realizability, studies of the paper's claims, its theory in exact worlds."""
