"""Networks as small as they get: what a test needs that looks at how parts fit together."""

TINY = dict(
    vis_transformer_layers=1,
    vis_transformer_d_model=16,
    aud_transformer_layers=1,
    aud_transformer_d_model=16,
    stream_heads=2,
    fusion_dim=16,
    ar_layers=1,
    ar_d_model=16,
    ar_heads=2,
    allow_out_of_range=True,
)
