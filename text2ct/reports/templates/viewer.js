// The viewer: NiiVue, started when it comes into sight. Without WebGL 2 it stays hidden and the still pictures remain.
(() => {
  const viewer = document.getElementById("viewer");
  if (!viewer || !document.createElement("canvas").getContext("webgl2") || !window.DecompressionStream) return;
  const part = (name) => viewer.querySelector(`[data-part=${name}]`);
  const [stage, poster, slider, volumeMenu, planeMenu, windowMenu, status] =
    ["stage", "poster", "slice", "volume", "plane", "window", "status"].map(part);
  const cards = [...document.querySelectorAll("[data-nifti]")];
  const windows = JSON.parse(viewer.dataset.windows);
  const AXES = { axial: 2, coronal: 1, sagittal: 0, all: 2 };
  const EDGES = [["left", "right"], ["back", "front"], ["bottom", "top"]];
  let nv = null, shown = 0, latest = 0;

  const bytes = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const text = (base64) => new Response(
    new Blob([bytes(base64)]).stream().pipeThrough(new DecompressionStream("gzip"))).text();

  async function start() {
    const script = document.createElement("script");
    script.textContent = await text(document.getElementById("niivue").textContent.trim());
    document.head.append(script);
    script.remove();
    nv = new Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [0.35, 0.75, 1, 1], fontColor: [0.56, 0.83, 1, 1],
      isRadiologicalConvention: true, sagittalNoseLeft: true, multiplanarShowRender: 0, multiplanarForceRender: false,
      dragAndDropEnabled: false, dragMode: 0, isColorbar: false, loadingText: "", logLevel: "silent", isHighResolutionCapable: true,
    });
    nv.resetBriCon = () => {}; // on a long touch or two fast ones: the window is the menu's
    await nv.attachToCanvas(stage.querySelector("canvas"));
    nv.onLocationChange = follow;
    await show(0);
    viewer.dataset.state = "ready";
    poster.hidden = true;
  }

  async function show(index) {
    shown = (index + cards.length) % cards.length;
    const card = cards[shown], turn = ++latest;
    cards.forEach((other) => other.classList.toggle("is-shown", other === card));
    volumeMenu.value = shown;
    part("prompt").textContent = card.querySelector(".prompt").textContent;
    part("labels").replaceChildren(...[...card.querySelectorAll(".chip")].map((chip) => chip.cloneNode(true)));
    if (!nv) return;
    while (nv.volumes.length) nv.removeVolume(nv.volumes[0]);
    await nv.loadFromArrayBuffer(bytes(card.dataset.nifti).buffer, `volume-${shown + 1}.nii.gz`);
    if (turn !== latest) return;
    while (nv.volumes.length > 1) nv.removeVolume(nv.volumes[0]);
    nv.opts.crosshairWidth = nv.volumes[0].dimsRAS[1] / 128; // in voxels: as thick on every grid
    setWindow();
    setPlane();
  }

  function setWindow() {
    [nv.volumes[0].cal_min, nv.volumes[0].cal_max] = windows[windowMenu.value];
    nv.updateGLVolume();
  }

  function setPlane() {
    nv.setSliceType({ axial: 0, coronal: 1, sagittal: 2, all: 3 }[planeMenu.value]);
    slider.max = count();
    follow();
  }

  const axis = () => AXES[planeMenu.value];
  const count = () => nv.volumes[0].dimsRAS[axis() + 1];

  function go(slice) {
    const n = count(), wanted = Math.min(Math.max(slice, 1), n);
    nv.scene.crosshairPos[axis()] = (wanted - 0.5) / n;
    nv.drawScene();
    follow();
  }

  function follow() {
    if (!nv.volumes.length) return;
    const n = count(), slice = Math.min(Math.floor(nv.scene.crosshairPos[axis()] * n) + 1, n);
    slider.value = slice;
    const plane = planeMenu.value === "all" ? "axial" : planeMenu.value;
    slider.setAttribute("aria-valuetext", `${plane} slice ${slice} of ${n}, from ${EDGES[axis()][0]} to ${EDGES[axis()][1]}`);
    status.textContent = `volume ${shown + 1} of ${cards.length}, ${plane} slice ${slice} of ${n}`;
  }

  const steps = {
    ArrowUp: () => go(Number(slider.value) + 1), ArrowDown: () => go(Number(slider.value) - 1),
    ArrowRight: () => show(shown + 1), ArrowLeft: () => show(shown - 1),
  };
  stage.addEventListener("keydown", (event) => {
    const step = !event.ctrlKey && !event.metaKey && !event.altKey && nv && steps[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    step();
  }, true);
  slider.addEventListener("input", () => nv && go(Number(slider.value)));
  volumeMenu.addEventListener("change", () => show(Number(volumeMenu.value)));
  planeMenu.addEventListener("change", () => nv && setPlane());
  windowMenu.addEventListener("change", () => nv && setWindow());
  part("previous").addEventListener("click", () => show(shown - 1));
  part("next").addEventListener("click", () => show(shown + 1));
  cards.forEach((card, index) => {
    const open = card.querySelector("button.open");
    open.disabled = false;
    open.addEventListener("click", () => {
      show(index);
      viewer.scrollIntoView({ block: "nearest" });
      stage.focus({ preventScroll: true });
    });
  });

  viewer.hidden = false;
  document.querySelector(".volumes").classList.add("is-menu");
  poster.src = cards[0].querySelector("img").src;
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    start().catch((error) => {
      viewer.hidden = true;
      document.querySelector(".volumes").classList.remove("is-menu");
      console.error(error);
    });
  }, { rootMargin: "400px" }).observe(viewer);
})();
