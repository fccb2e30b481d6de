"""The sequence encoder: what a market's bars up to now say, as one vector a bar.

Start with `config`, then `networks` (bars to embeddings) and `heads` (embeddings to what is learned from). torch is
imported by the modules that need it, not here."""

from odin_core.encoder.config import EncoderConfig, receptive_field

__all__ = ["EncoderConfig", "receptive_field"]
