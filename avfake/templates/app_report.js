element.addEventListener('click', event => {
  const link = event.target.closest('a[data-page]');
  if (!link) return;
  const [page] = element.querySelector('iframe').srcdoc.split('<!-- shown in a frame -->');
  link.href = URL.createObjectURL(new Blob([page], {type: 'text/html'}));
});
window.addEventListener('message', event => {
  const frame = element.querySelector('iframe');
  if (frame && event.source === frame.contentWindow && event.data.avfakeHeight) {
    frame.style.height = `${event.data.avfakeHeight + 2}px`;
  }
});
watch('value', () => {
  if (element.getBoundingClientRect().top > 0.6 * innerHeight) element.scrollIntoView({behavior: 'smooth'});
});
