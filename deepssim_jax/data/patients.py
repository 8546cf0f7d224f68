"""What patients of DICOM files are called: never by the ids of their headers."""

import hashlib

ALIAS = "dicom-"


def alias(patient_id: str, issuer: str = "") -> str:
    """What a patient is called in place of PatientID and IssuerOfPatientID: their hash.

    It tells patients apart and names none. Who has a list of ids can find theirs by it: it is no
    protection against them.
    """
    name = f"{issuer}\0{patient_id}".encode("utf-8", "surrogatepass")  # a typed one can be no UTF-8
    return ALIAS + hashlib.sha256(name).hexdigest()[:12]


def under_any_issuer(patient_id: str) -> str:
    """What stands for a PatientID whatever its issuer; in no file, and no issuer holds a zero byte."""
    return alias(patient_id, "\0")
