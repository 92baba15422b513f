"""The vocabulary of findings: the classes everything here is asked about. Source: Dombrowski et al. 2024, Table 1."""

#: The eight finding classes of the paper (Table 1), in its order, and the healthy label.
FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Lung Opacity",
    "Pleural Effusion",
    "Pneumonia",
    "Pneumothorax",
)
NO_FINDING = "No Finding"
