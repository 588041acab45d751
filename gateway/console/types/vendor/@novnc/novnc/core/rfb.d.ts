/** What the console uses of noVNC. */
export default class RFB extends EventTarget {
  constructor(target: HTMLElement, channel: WebSocket, options: {shared: boolean});
  scaleViewport: boolean;
  sendCtrlAltDel(): void;
  focus(): void;
  disconnect(): void;
}
