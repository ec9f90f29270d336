"""The simulated chest CT cohort: patients, anatomy, findings, reports, and the files of CT-RATE's layout."""

from text2ct.simulation.cohort import simulate_cohort
from text2ct.simulation.labels import draw_labels
from text2ct.simulation.patients import draw_patient, patient_number

__all__ = ["draw_labels", "draw_patient", "patient_number", "simulate_cohort"]
