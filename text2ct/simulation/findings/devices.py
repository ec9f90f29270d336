"""Medical material: pacemakers, ports, wires, screws, valves, drains."""

from __future__ import annotations

import numpy as np

from text2ct.simulation.anatomy_bones import VERTEBRA_PITCH_MM
from text2ct.simulation.anatomy_scene import Scene
from text2ct.simulation.anatomy_shape import cage_depth
from text2ct.simulation.findings.base import FindingModel, choose, draw_severity, signs
from text2ct.simulation.instance import Instance
from text2ct.simulation.patients import Patient

METAL_HU = 3000.0
CATHETER_HU = 1300.0


class MedicalMaterial(FindingModel):
    """One device where it belongs; metal saturates."""

    finding = "Medical material"
    stage = 80

    def draw(self, rng: np.random.Generator, patient: Patient) -> Instance:
        """Draw the device, its side and the number of leads, wires or levels."""
        weights = {
            "pacemaker": 0.24,
            "port catheter": 0.22,
            "sternal wires": 0.24,
            "spinal fixation": 0.1,
            "valve prosthesis": 0.1,
            "pleural drain": 0.1,
        }
        site = choose(rng, weights)
        side = choose(rng, {"right": 0.5, "left": 0.5})
        if site == "pacemaker":
            side = choose(rng, {"left": 0.85, "right": 0.15})
        elif site == "port catheter":
            side = choose(rng, {"right": 0.75, "left": 0.25})
        elif site != "pleural drain":
            side = ""
        count = {"pacemaker": int(rng.integers(1, 3)), "sternal wires": int(rng.integers(5, 8))}.get(site, 1)
        return Instance(self.finding, draw_severity(rng), side, site, count=count)

    def apply(self, scene: Scene, instance: Instance, rng: np.random.Generator) -> None:
        """Paint the device."""
        sign = signs(instance.side)[0]
        paint = {
            "pacemaker": self._pacemaker,
            "port catheter": self._port,
            "sternal wires": self._wires,
            "spinal fixation": self._spine,
            "valve prosthesis": self._valve,
            "pleural drain": self._drain,
        }[instance.site]
        paint(scene, sign, instance, rng)

    @staticmethod
    def _wall_y(scene: Scene, x_mm: float, z_mm: float) -> float:
        """Canonical y of the front of the chest muscle at (x, z)."""
        y = np.arange(0.0, 140.0, 1.0, dtype=np.float32)
        depth = cage_depth(scene.anatomy, np.full_like(y, x_mm), y, np.full_like(y, z_mm))
        return float(y[int(np.argmax(depth < -(12.0 + 0.6 * scene.anatomy.muscle_mm)))])

    @staticmethod
    def _solid(scene: Scene, centre: tuple[float, ...], axes: tuple[float, ...], hu: float) -> None:
        box, cover = scene.ball(centre, axes)
        scene.mix(cover, hu, box)

    def _pacemaker(self, scene: Scene, sign: float, instance: Instance, rng: np.random.Generator) -> None:
        y = self._wall_y(scene, 78.0, 66.0) + 3.0
        pocket = (sign * 80.0, y, 66.0)
        self._solid(scene, pocket, (25.0, 7.5, 22.0), METAL_HU)
        a = scene.anatomy
        apex = np.array(a.heart_centre) + np.array([-0.62, 0.40, -0.30]) * a.heart_axes[0]
        entry = [[sign * 70.0, y, 86.0], [sign * 48.0, 28.0, 98.0], [22.0, 16.0, 80.0], [23.0, 9.0, 0.0]]
        targets = [apex, np.array([26.0, 22.0, -14.0])]
        for target in targets[: instance.count]:
            scene.mix(scene.tube(np.array([*entry, target]), 2.2), METAL_HU)

    def _port(self, scene: Scene, sign: float, instance: Instance, rng: np.random.Generator) -> None:
        y = self._wall_y(scene, 76.0, 60.0) + 3.0
        self._solid(scene, (sign * 78.0, y, 58.0), (16.0, 9.0, 16.0), METAL_HU * 0.7)
        line = [
            [sign * 70.0, y, 70.0],
            [sign * 46.0, 34.0, 100.0],
            [sign * 30.0, 8.0, 112.0],
            [23.0, 14.0, 76.0],
            [23.0, 8.0, 6.0],
        ]
        scene.mix(scene.tube(np.array(line), 2.8), CATHETER_HU)

    def _wires(self, scene: Scene, sign: float, instance: Instance, rng: np.random.Generator) -> None:
        turn = np.linspace(0, 2 * np.pi, 13)
        for z in np.linspace(76.0, -34.0, instance.count):
            y = self._wall_y(scene, 0.0, float(z)) - 8.0
            ring = np.stack([16.0 * np.cos(turn), y - 1 + 8.0 * np.sin(turn), z + 1.5 * np.sin(2 * turn)], axis=1)
            scene.mix(scene.tube(ring, 1.9), METAL_HU)

    def _spine(self, scene: Scene, sign: float, instance: Instance, rng: np.random.Generator) -> None:
        low = float(rng.uniform(-110.0, -10.0))
        for side in (1.0, -1.0):
            rod = np.array([[side * 19.0, -92.0, low - 6], [side * 19.0, -92.0, low + 3 * VERTEBRA_PITCH_MM + 6]])
            scene.mix(scene.tube(rod, 3.4), METAL_HU)
            for z in low + VERTEBRA_PITCH_MM * np.arange(4):
                screw = np.array([[side * 19.0, -92.0, z], [side * 10.0, -50.0, z]])
                scene.mix(scene.tube(screw, 3.2), METAL_HU)

    def _valve(self, scene: Scene, sign: float, instance: Instance, rng: np.random.Generator) -> None:
        turn = np.linspace(0, 2 * np.pi, 17)
        centre = (
            np.array([1.0, 15.0, 0.0]) if rng.random() < 0.6 else np.add(scene.anatomy.heart_centre, [2.0, -12.0, 6.0])
        )
        u, v = np.array([0.8, 0.0, 0.6]), np.array([0.3, 0.86, -0.4])
        ring = centre + 14.0 * (np.cos(turn)[:, None] * u + np.sin(turn)[:, None] * v)
        scene.mix(scene.tube(ring, 3.0), METAL_HU)
        scene.mix(scene.tube(np.stack([centre - 9.0 * u, centre + 9.0 * u]), 2.2), METAL_HU)

    def _drain(self, scene: Scene, sign: float, instance: Instance, rng: np.random.Generator) -> None:
        z = float(rng.uniform(-45.0, 5.0))
        line = [
            [sign * 172.0, 22.0, z - 22],
            [sign * 118.0, 2.0, z],
            [sign * 96.0, -42.0, z + 22],
            [sign * 66.0, -62.0, z + 60],
        ]
        scene.mix(scene.tube(np.array(line), 4.2), CATHETER_HU)
        scene.mix(scene.tube(np.array(line), 1.8), -600.0)
