/** What the console uses of xterm. */
export class Terminal {
  constructor(options: {
    scrollback: number;
    fontFamily: string;
    fontSize: number;
    screenReaderMode: boolean;
    linkHandler: {activate(event: MouseEvent, text: string): void};
  });
  loadAddon(addon: object): void;
  open(host: HTMLElement): void;
  onData(listener: (text: string) => void): void;
  write(bytes: Uint8Array | string, shown?: () => void): void;
  paste(text: string): void;
  reset(): void;
  focus(): void;
  dispose(): void;
}
