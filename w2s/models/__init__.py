"""Language models and encoders: loading, scoring, training, generating. torch begins here."""
